"""Imports go downward only, and to what a room names: any other import fails here."""

import ast
import importlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_prune"

FLOORS = (
    {"errors", "torchvision_operators"},
    {"arguments"},
    {"graph", "models", "data"},
    {"quantization", "training"},
    {"slimming"},
    {"pruning"},
    {"reporting"},
    {"export"},
    {"distillation"},
    {"callbacks"},
    {"options"},
    {"runs"},
    {"commands"},
)
"""The rooms, lowest first; those of one floor do not know each other."""

STANDARD = set(sys.stdlib_module_names)
LIBRARIES = {
    "torchvision_operators": {"torch"},
    "graph": {"torch"},
    "quantization": {"torch"},
    "slimming": {"torch", "lightning"},
    "training": {"torch", "lightning", "numpy", "torchmetrics"},
    "pruning": {"torch", "lightning"},
    "reporting": {"torch", "rich", "matplotlib"},
    "export": {"torch", "numpy", "onnx", "onnxscript", "onnxruntime"},
    "distillation": {"torch", "lightning"},
    "callbacks": {"torch", "lightning"},
    "runs": {"torch", "torchmetrics", "lightning", "rich", "filelock", "omegaconf", "hydra"},
    "options": {"hydra", "omegaconf"},
    "commands": {"lightning", "rich", "hydra", "omegaconf"},
    "models": {"torch", "lightning", "torchmetrics"},
    "data": {"torch", "lightning", "numpy", "PIL", "pyarrow", "sklearn", "huggingface_hub", "filelock"},
}
"""What each room imports from outside of the package and of Python."""

ENTRIES = [ROOT / "train.py", *sorted((ROOT / "scripts").rglob("*.py"))]
FILES = [*sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"), *ENTRIES]
FAMILIES = {
    path.rpartition(".")[0]
    for file in (ROOT / "conf").rglob("*.yaml")
    for path in re.findall(r"lightning_prune(?:\.\w+){3,}|lightning_prune\.(?:models|data)\.\w+\.\w+", file.read_text())
}
"""The modules to which `conf/` leads by dotted paths."""


class Import(NamedTuple):
    """What one import statement brings in."""

    module: str
    names: tuple[str, ...] = ()


def imports(path: Path) -> list[Import]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [Import(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(Import(node.module or "", tuple(alias.name for alias in node.names)))
    return found


def room_of(path: Path) -> str:
    """Return the room of a file; entry points and the package's own face stand above all."""
    inside = PACKAGE in path.parents and path.name != "__main__.py"
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py") if inside else "entry"


def floor_of(room: str) -> int:
    return len(FLOORS) if room == "entry" else next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def face_of(room: str) -> list[str]:
    return getattr(importlib.import_module(f"lightning_prune.{room}"), "__all__", [])


def problems(room: str, imported: list[Import]) -> list[str]:
    found = []
    for module, names in imported:
        first, *rest = module.split(".")
        if first != "lightning_prune":
            if room != "entry" and first not in STANDARD | LIBRARIES.get(room, set()):
                found.append(f"{room} imports {module}")
        elif not rest:
            if room != "entry":
                found.append(f"{room} imports the package, which stands above it")
        elif rest[0] != room:
            if floor_of(rest[0]) >= floor_of(room):
                found.append(f"{room} imports {module}, which stands above or beside it")
            if len(rest) > 1 and module not in FAMILIES:
                found.append(f"{room} imports {module}, past the face of {rest[0]}")
            if len(rest) == 1 and (PACKAGE / rest[0]).is_dir():
                unnamed = {name for name in names if f"{module}.{name}" not in FAMILIES} - set(face_of(rest[0]))
                found += [f"{room} imports {name}, which {module} does not name" for name in unnamed]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward_to_faces(path: Path) -> None:
    assert problems(room_of(path), imports(path)) == []


def test_upward_imports_are_seen() -> None:
    assert problems("pruning", [Import("lightning_prune.callbacks", ("Pruner",))])
    assert problems("slimming", [Import("lightning_prune.pruning", ("Prunable",))])
    assert problems("quantization", [Import("lightning_prune.training", ("OrderedCallback",))])
    assert problems("slimming", [Import("lightning_prune", ("slim",))])
    assert problems("graph", [Import("lightning")])
    assert problems("models", [Import("lightning_prune.callbacks")])
    assert problems("callbacks", [Import("hydra")])
    fine = [
        Import("lightning_prune.slimming", ("slim_state",)),
        Import("lightning_prune.callbacks.pruner"),
        Import("math"),
    ]
    assert not problems("callbacks", fine)


def test_imports_past_a_face_are_seen() -> None:
    assert problems("callbacks", [Import("lightning_prune.slimming.surgery", ("copy_of",))])
    assert problems("callbacks", [Import("lightning_prune.slimming", ("cut_what_works",))])
    assert problems("callbacks", [Import("lightning_prune.pruning.criteria.criterion", ("Criterion",))])
    assert not problems("callbacks", [Import("lightning_prune.pruning.criteria.taylor", ("Taylor",))])


def test_faces_name_what_is_used() -> None:
    outside = (ROOT / "README.md").read_text() + (PACKAGE / "__init__.py").read_text()
    used = {(module, name) for path in FILES for module, names in imports(path) for name in names}
    for room in set().union(*FLOORS) - FLOORS[0]:
        inside = f"lightning_prune.{room}"
        unused = [name for name in face_of(room) if (inside, name) not in used and name not in outside]
        assert not unused, f"nothing outside of {room} uses {unused}"


def test_every_folder_is_a_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {name.removesuffix(".py") for name in rooms - {"__init__.py", "__main__.py"}} <= set().union(*FLOORS)


def test_entry_points_and_runs_alone_import_hydra_and_nobody_imports_wandb() -> None:
    for path in FILES:
        tops = {module.partition(".")[0] for module, _ in imports(path)}
        assert "wandb" not in tops, path
        assert not tops & {"hydra", "omegaconf"} or room_of(path) in ("entry", "options", "runs", "commands"), path
