"""Imports go downward only: an upward import fails here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_prune"

LAYERS = {
    "errors": 0,
    "tracing": 1,
    "interception": 1,
    **dict.fromkeys(("criteria", "granularities", "schedules", "distillation", "quantizers", "profiling"), 1),
    **dict.fromkeys(("axes", "walk", "operators", "groups", "coupling", "weights", "pools"), 2),
    **dict.fromkeys(("sites", "integer_layers", "placement", "quantization", "quantizing"), 2),
    **dict.fromkeys(("flow", "scaling", "structures", "replacing", "splits"), 2),
    **dict.fromkeys(("discriminator", "adversary", "fista", "soft_masks", "adversarial_search"), 2),
    **dict.fromkeys(
        ("selection", "masking", "choosing", "held_masks", "losses", "sensitivity", "activations", "admm"), 2
    ),
    **dict.fromkeys(("optimizer_slicing", "scratch", "weight_sharing"), 2),
    **dict.fromkeys(("proof", "nothing", "surgery", "slimming", "slim_parts", "permutation"), 3),
    **dict.fromkeys(("stated_sizes", "prunable_groups", "channel_pools"), 3),
    **dict.fromkeys(("callbacks", "search", "export", "plots", "group_plot", "report", "sweeps"), 4),
    **dict.fromkeys(("checkpoints", "slim_files", "made_once", "comparison", "typed", "resolvers", "quiet"), 4),
    **dict.fromkeys(("stages", "second_fit", "exporting"), 4),
    **dict.fromkeys(("models", "data"), 4),
}
OUTSIDE = {
    1: {"torch"},
    2: {"torch"},
    3: {"torch"},
    4: {"torch", "lightning", "torchmetrics", "rich", "matplotlib", "numpy"}
    | {"PIL", "pyarrow", "sklearn", "huggingface_hub", "filelock", "omegaconf"}
    | {"onnx", "onnxscript", "onnxruntime"},
}
STANDARD = set(__import__("sys").stdlib_module_names)
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def problems(name: str, imported: list[str]) -> list[str]:
    layer, found = LAYERS[name], []
    for module in imported:
        first, *rest = module.split(".")
        if first == "lightning_prune":
            other = rest[0]
            level = LAYERS[other]
            sideways = {"models", "data"} & {name, other} and name != other and level == layer
            if level > layer or sideways:
                found.append(f"{name} imports {module}, which stands above or beside it")
        elif first not in STANDARD and first not in OUTSIDE.get(layer, set()):
            found.append(f"{name} imports {module}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    assert problems(part(path), imports(path)) == []


def test_upward_imports_are_seen() -> None:
    assert problems("criteria", ["lightning_prune.masking"])
    assert problems("coupling", ["lightning"])
    assert problems("models", ["lightning_prune.callbacks.targets"])
    assert problems("slimming", ["lightning_prune.callbacks"])
    assert problems("callbacks", ["hydra"])
    assert not problems("callbacks", ["lightning_prune.slimming", "torch", "math"])


def test_families_list_nothing() -> None:
    for init in PACKAGE.glob("*/__init__.py"):
        if init.parent.name in (
            "criteria",
            "granularities",
            "schedules",
            "distillation",
            "callbacks",
            "models",
            "data",
        ):
            assert imports(init) == []


def test_entry_points_alone_import_hydra_and_nobody_imports_wandb() -> None:
    entries = [ROOT / "train.py", *(ROOT / "scripts").rglob("*.py")]
    for path in [*entries, *PACKAGE.rglob("*.py")]:
        tops = {module.partition(".")[0] for module in imports(path)}
        assert "wandb" not in tops, path
        assert path in entries or "hydra" not in tops, path
        assert path in entries or "omegaconf" not in tops or path.name == "stages.py", path
