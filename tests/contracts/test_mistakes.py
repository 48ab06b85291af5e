"""What no argument can be is refused where an object is built, in one line; a class that is new is tested at once."""

import importlib
import inspect
import math
import pkgutil
import re
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import nn

import lightning_prune
from lightning_prune.distillation.losses.hint import Hint
from lightning_prune.errors import InputError

CONF = Path(lightning_prune.__file__).parent / "conf"
FAMILIES = (
    "pruning.criteria",
    "pruning.granularities",
    "pruning.schedules",
    "quantization.quantizers",
    "distillation.losses",
)
ELSEWHERE = r"lightning_prune\.(data\.|runs\.|models\.\w+_network)"
"""What a configuration alone builds, whose keys are checked where it is read, and networks of other libraries."""
OF_LIGHTNING = {"BestPrunedCheckpoint"}
"""Whose arguments are those of a class of Lightning, which it hands on."""


def found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def targets() -> dict[str, Any]:
    """Return all that a user builds or calls, by name."""
    paths = {f"lightning_prune.{name}" for name in lightning_prune.__all__}
    for file in CONF.rglob("*.yaml"):
        paths |= set(re.findall(r"_target_: (lightning_prune\S+)", file.read_text()))
    for family in FAMILIES:
        package = importlib.import_module(f"lightning_prune.{family}")
        for file in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            members = vars(importlib.import_module(file.name)).values()
            paths |= {f"{file.name}.{one.__name__}" for one in members if is_dataclass(one) and isinstance(one, type)}
    objects = {found(path): path for path in sorted(paths) if not re.match(ELSEWHERE, path)}
    return {one.__name__: one for one in objects if callable(one) and one.__name__ not in OF_LIGHTNING}


TARGETS = targets()
NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
NEEDED: dict[str, Any] = {
    "model": NET,
    "network": NET,
    "example_input": torch.zeros(2, 3, 8, 8),
    "path": "file.pt",
    "sparsity": 0.4,
    "strength": 1e-4,
    "student": "layer",
    "teacher": "layer",
    "layers": ["layer"],
    "loss": Hint(),
    "num_classes": 10,
    "latency_seconds": 0.0,
    "monitor": "val/loss",
    "scheduler": lambda optimizer: None,
}
"""Values for arguments that have no default, or one that takes a while."""

NONSENSE: dict[str, Any] = {
    "a class": Path,
    "a text": "nonsense",
    "an empty text": "",
    "None": None,
    "NaN": math.nan,
    "infinity": math.inf,
    "a negative number": -1,
    "a small negative number": -0.5,
    "True": True,
    "some numbers": torch.zeros(3),
    "a module": nn.Linear(2, 2),
    "an object": object(),
    "an empty list": [],
    "a list of objects": [object()],
    "a list of texts": ["nonsense"],
    "a class in a list": [Path],
    "an empty dictionary": {},
    "a dictionary of objects": {"*": object()},
    "a dictionary of NaN": {"*": math.nan},
    "a dictionary of a class": {"*": Path},
    "a dictionary by numbers": {1: 0.5},
    "a function": lambda: None,
}

LEGAL = {
    ("Vector", "dim", "a negative number"),  # counted from the last
    ("Magnitude", "p", "infinity"),  # the largest weight
    ("SoftFilterPruning", "max_regrowth", "infinity"),
    ("GALPruning", "seed", "a negative number"),
    ("save_slim", "build", "a dictionary of NaN"),  # whatever the arguments of a constructor are
}
"""Numbers beyond what most arguments can be that make sense where they stand."""


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is one that an annotation allows."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if isinstance(hint, TypeVar):
        return fits(value, hint.__bound__)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in inner)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inner)
    if hint in (float, int):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    if hint is None or hint is type(None):
        return value is None
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(k, inner[0]) and fits(v, inner[1]) for k, v in value.items())
    if origin is Callable or origin is type(Callable) or str(origin) == "<class 'collections.abc.Callable'>":
        return callable(value) and not isinstance(value, type)
    if origin is not None and issubclass(origin, Collection):
        of = inner[0] if inner else Any
        return isinstance(value, list | tuple | set) and all(fits(entry, of) for entry in value)
    return isinstance(value, origin or hint)


def cases() -> list[tuple[str, str]]:
    return [(name, parameter) for name, target in TARGETS.items() for parameter in inspect.signature(target).parameters]


def base(target: Any) -> dict[str, Any]:
    """Return arguments with which a target can be built."""
    parameters = inspect.signature(target).parameters.values()
    needed = {p.name: NEEDED[p.name] for p in parameters if p.default is p.empty or p.name == "latency_seconds"}
    return needed | ({"sparsity": 0.4} if any(p.name == "sparsity" for p in parameters) else {})


def must_be_refused(name: str, parameter: str, hint: Any, kind: str) -> bool:
    if not fits(NONSENSE[kind], hint):
        return True
    never = kind in ("NaN", "infinity", "a negative number", "a small negative number", "a dictionary of NaN")
    return never and (name, parameter, kind) not in LEGAL


@pytest.mark.parametrize(("name", "parameter"), cases())
@pytest.mark.filterwarnings("ignore")
def test_nonsense_is_refused_in_one_line(
    name: str, parameter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = TARGETS[name]
    hint = get_type_hints(target.__init__ if isinstance(target, type) else target)[parameter]
    problems = []
    for kind, value in NONSENSE.items():
        try:
            target(**{**base(target), parameter: value})
        except InputError as error:
            message = str(error)
            if not message.startswith("expected ") or "\n" in message or len(message) > 600:
                problems.append(f"{kind}: {message}")
        except Exception as error:
            problems.append(f"{kind}: {type(error).__name__}: {error}")
        else:
            if must_be_refused(name, parameter, hint, kind):
                problems.append(f"{kind}: accepted")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_tried_can_be_built(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "load_slim":
        lightning_prune.save_slim(NET, "file.pt")
    TARGETS[name](**base(TARGETS[name]))
