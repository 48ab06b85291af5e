"""Checks of what is handed to a callback's constructor."""

import math
from typing import Any

from lightning_prune.errors import InputError


def one_of(name: str, value: Any, options: tuple[Any, ...]) -> Any:
    """Return `value` if it is one of the options.

    Raises:
        InputError: If it is not.
    """
    if value not in options:
        raise InputError(f"expected {name} to be one of {', '.join(map(str, options))}, got {value!r}")
    return value


def instance(name: str, kind: Any, value: Any) -> Any:
    """Return `value` if it is of a kind.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(value, kind):
        names = " or ".join(option.__name__ for option in getattr(kind, "__args__", (kind,)))
        raise InputError(f"expected {name} to be a {names}, got {value!r}")
    return value


def positive(name: str, value: int) -> int:
    """Return `value` if it is a whole number of at least 1.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"expected {name} to be a whole number of at least 1, got {value!r}")
    return value


def at_least_zero(name: str, value: float) -> float:
    """Return `value` if it is a finite number of at least 0.

    Raises:
        InputError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise InputError(f"expected {name} to be a number of at least 0, got {value!r}")
    return float(value)
