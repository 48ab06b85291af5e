"""One number for all layers, or one for each layer name pattern, of which the first that matches counts."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase

from lightning_prune.errors import InputError

Numbers = float | Mapping[str, float]
"""One for all layers, or one by pattern; `*` stands for any characters, dots included."""


def check_each(name: str, numbers: Numbers, check: Callable[[str, float], float]) -> float | dict[str, float]:
    """Return `numbers` if each of them passes a check.

    Args:
        name: What they are called in messages.
        numbers: One, or some by pattern.
        check: Returns a number that is allowed, and refuses another by the name that it is given.

    Raises:
        InputError: If one does not pass, or there is no pattern.
    """
    if not isinstance(numbers, Mapping):
        return check(name, numbers)
    if not numbers:
        raise InputError(f"expected {name} to name at least one layer pattern, got none")
    return {pattern: check(f"{name}[{pattern}]", number) for pattern, number in numbers.items()}


def by_layer(name: str, numbers: Numbers, layers: Iterable[str], kind: str = "a layer") -> dict[str, float]:
    """Return the number of each layer, 0 for those that no pattern matches.

    Args:
        name: What they are called in messages.
        numbers: One, or some by pattern.
        layers: Names of layers.
        kind: What these layers are, in messages.

    Raises:
        InputError: If a pattern matches no layer.

    >>> by_layer("sparsity", {"body.*": 0.5, "*.1": 0.9}, ["body.0", "body.1", "head.0", "head.1"])
    {'body.0': 0.5, 'body.1': 0.5, 'head.0': 0.0, 'head.1': 0.9}
    """
    layers = list(dict.fromkeys(layers))
    if not isinstance(numbers, Mapping):
        return dict.fromkeys(layers, numbers)
    for pattern in numbers:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise InputError(f"expected {name}[{pattern}] to match {kind}, got no match among {some(layers)}")
    return {
        layer: next((number for pattern, number in numbers.items() if fnmatchcase(layer, pattern)), 0.0)
        for layer in layers
    }


def some(names: Iterable[str]) -> str:
    """Return names for a message: no more than eight."""
    names = list(names)
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
