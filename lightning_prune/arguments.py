"""Checks of what a person hands over: each returns the value, or says in one line what was expected and what came."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import is_dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from lightning_prune.errors import InputError

__all__ = ["flag", "function", "instance", "items", "near", "nearest", "number", "one_of", "shown", "whole_number"]


def number(name: str, value: Any, interval: str) -> Any:
    """Return `value` if it is a number in an interval.

    Args:
        name: What it is called in the message.
        value: An int or float; NaN is in no interval, and a bool is no number.
        interval: As it is written: a bracket includes its end, a parenthesis leaves it out; `inf` is a number.

    Raises:
        InputError: If it is not.

    >>> number("sparsity", 0.4, "[0, 1)")
    0.4
    """
    low, high = map(float, interval[1:-1].split(","))
    if isinstance(value, int | float) and not isinstance(value, bool):
        above = low <= value if interval[0] == "[" else low < value
        below = value <= high if interval[-1] == "]" else value < high
        if above and below:
            return value
    raise InputError(f"expected {name} in {interval}, got {shown(value)}")


def whole_number(name: str, value: Any, least: int | None = 1, most: int | None = None) -> Any:
    """Return `value` if it is a whole number within bounds, None for no bound.

    Raises:
        InputError: If it is not.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and (least is None or value >= least) and (most is None or value <= most):
        return value
    bounds = "" if least is None else f" of at least {least}" if most is None else f" in {least}..{most}"
    raise InputError(f"expected {name} to be a whole number{bounds}, got {shown(value)}")


def flag(name: str, value: Any) -> Any:
    """Return `value` if it is True or False.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, bool):
        return value
    raise InputError(f"expected {name} to be True or False, got {shown(value)}")


def one_of(name: str, value: Any, options: Iterable[Any]) -> Any:
    """Return `value` if it is one of the options, of the same type.

    Raises:
        InputError: If it is not.
    """
    options = tuple(options)
    if any(type(value) is type(option) and value == option for option in options):
        return value
    raise InputError(f"expected {name} to be one of {', '.join(map(str, options))}, got {shown(value)}")


def items(name: str, value: Any, what: str) -> Any:
    """Return `value` if it is a list, or the like: no text, no dictionary and no tensor.

    Args:
        name: What it is called in the message.
        value: The collection.
        what: What it is a list of, for the message.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, Sequence | Set) and not isinstance(value, str | bytes):
        return value
    raise InputError(f"expected {name} to be a list of {what}, got {shown(value)}")


def instance(name: str, kind: Any, value: Any, such_as: type | None = None) -> Any:
    """Return `value` if it is of a kind.

    Args:
        name: What it is called in the message.
        kind: A class, or several joined by `|`.
        value: The instance.
        such_as: A member of the family of classes that are of that kind, one file each in one folder.

    Raises:
        InputError: If it is not; what a text seems to name, or a class, is told how to become an instance.
    """
    if isinstance(value, kind):
        return value
    kinds = " or ".join(_called(option) for option in getattr(kind, "__args__", (kind,)))
    example = "" if such_as is None else f" such as {such_as.__name__}()"
    raise InputError(f"expected {name} to be a {kinds}{example}, got {shown(value)}{_advice(value, such_as)}")


def function(name: str, value: Any, takes: str, such_as: Callable[..., Any]) -> Any:
    """Return `value` if it can be called with arguments.

    Args:
        name: What it is called in the message.
        value: The function, or an object that can be called.
        takes: The arguments' names, by which the message calls them.
        such_as: A function, or a member of a family of classes whose instances are such.

    Raises:
        InputError: If it is not, or if it is a class.
    """
    if callable(value) and not isinstance(value, type) and _can_be_called_with(value, takes.count(",") + 1):
        return value
    example = f"{such_as.__name__}()" if isinstance(such_as, type) else such_as.__name__
    family = such_as if isinstance(such_as, type) else None
    raise InputError(
        f"expected {name} to be a function of ({takes}) such as {example}, got {shown(value)}{_advice(value, family)}"
    )


def shown(value: Any) -> str:
    """Return what a message says of a value: one line that is not long.

    >>> shown(int), shown("taylor"), shown([0] * 100)[-6:]
    ('the class int', "'taylor'", ', 0...')
    """
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def near(name: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """Return a question with the most similar of known names, or nothing.

    Args:
        name: What came.
        known: What could have been meant.
        cutoff: How alike they have to be, of 1.

    >>> near("resnet21", ["resnet20", "vgg16_bn"])
    '; did you mean resnet20?'
    """
    found = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {found[0]}?" if found else ""


def nearest(text: str, names: Iterable[str], most: int = 8) -> str:
    """Return names for a message, those first that are most like a text: no more than so many.

    >>> nearest("layer2.*", ["conv1", "layer1.0", "layer2.0"], most=2)
    'layer2.0, layer1.0, ...'
    """
    likeness = SequenceMatcher(b=text.replace("*", ""))

    def distance(name: str) -> float:
        likeness.set_seq1(name)
        return -likeness.ratio()

    ordered = sorted(dict.fromkeys(names), key=distance)
    return ", ".join(ordered[:most]) + (", ..." if len(ordered) > most else "")


def _called(kind: Any) -> str:
    return "None" if kind is type(None) else str(kind.__name__)


def _can_be_called_with(value: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(value).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # code of another language does not tell what it takes
        return True
    return True


def _advice(value: Any, such_as: type | None) -> str:
    """Return what to do in place of handing over a class, or the name of one."""
    if isinstance(value, type):
        return f"; make one of it by {value.__name__}(...)"
    if not isinstance(value, str) or such_as is None:
        return ""
    family = such_as.__module__.rpartition(".")[0]
    members = list(_members(family))
    by_name = {_plain(name): member for member in members for name in (_file(member), member.__name__)}
    likely = get_close_matches(_plain(value), by_name, n=1)
    if not likely:
        return f"; {family} has {', '.join(member.__name__ for member in members)}"
    member = by_name[likely[0]]
    return f"; write: from {member.__module__} import {member.__name__}, and pass {member.__name__}()"


def _members(family: str) -> Iterable[type]:
    """Yield the classes of a family."""
    for file in pkgutil.iter_modules(importlib.import_module(family).__path__):
        module = importlib.import_module(f"{family}.{file.name}")
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and is_dataclass(value):
                yield value


def _file(member: type) -> str:
    return member.__module__.rpartition(".")[2]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))
