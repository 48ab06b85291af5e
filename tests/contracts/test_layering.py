"""Imports go downward only: an upward import fails here."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_prune"

FLOORS = (
    {"errors"},
    {"graph", "models", "data"},
    {"quantization", "training"},
    {"slimming"},
    {"pruning"},
    {"search", "reporting"},
    {"export"},
    {"distillation"},
    {"callbacks"},
    {"runs"},
)
"""The rooms, lowest first; those of one floor do not know each other."""

STANDARD = set(sys.stdlib_module_names)
LIBRARIES = {
    "graph": {"torch"},
    "quantization": {"torch"},
    "slimming": {"torch", "lightning"},
    "training": {"torch", "lightning", "numpy", "torchmetrics"},
    "pruning": {"torch", "lightning"},
    "reporting": {"torch", "rich", "matplotlib"},
    "export": {"torch", "numpy", "onnx", "onnxscript", "onnxruntime"},
    "distillation": {"torch", "lightning"},
    "callbacks": {"torch", "lightning"},
    "runs": {"torch", "lightning", "rich", "filelock", "omegaconf"},
    "models": {"torch", "lightning", "torchmetrics"},
    "data": {"torch", "lightning", "PIL", "pyarrow", "sklearn", "huggingface_hub"},
}
"""What each room imports from outside of the package and of Python."""

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


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def problems(room: str, imported: list[str]) -> list[str]:
    found = []
    for module in imported:
        first, *rest = module.split(".")
        if first == "lightning_prune":
            if rest[0] != room and floor_of(rest[0]) >= floor_of(room):
                found.append(f"{room} imports {module}, which stands above or beside it")
        elif first not in STANDARD | LIBRARIES.get(room, set()):
            found.append(f"{room} imports {module}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    assert problems(room_of(path), imports(path)) == []


def test_upward_imports_are_seen() -> None:
    assert problems("pruning", ["lightning_prune.callbacks.pruner"])
    assert problems("slimming", ["lightning_prune.pruning.pools"])
    assert problems("quantization", ["lightning_prune.training.order"])
    assert problems("graph", ["lightning"])
    assert problems("models", ["lightning_prune.callbacks"])
    assert problems("callbacks", ["hydra"])
    assert not problems("callbacks", ["lightning_prune.slimming", "lightning_prune.callbacks.pruner", "torch", "math"])


def test_every_folder_is_a_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {name.removesuffix(".py") for name in rooms - {"__init__.py"}} <= set().union(*FLOORS)


def test_entry_points_alone_import_hydra_and_nobody_imports_wandb() -> None:
    entries = [ROOT / "train.py", *(ROOT / "scripts").rglob("*.py")]
    for path in [*entries, *PACKAGE.rglob("*.py")]:
        tops = {module.partition(".")[0] for module in imports(path)}
        assert "wandb" not in tops, path
        assert path in entries or "hydra" not in tops, path
        assert path in entries or "omegaconf" not in tops or path.name == "stages.py", path
