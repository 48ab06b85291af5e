"""Layers by name: one number for all, or one for each pattern, of which the first that matches counts."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from lightning_prune.arguments import nearest, shown
from lightning_prune.errors import InputError

Numbers = float | Mapping[str, float]
"""One for all layers, or one by pattern; `*` stands for any characters, dots included."""

Value = TypeVar("Value")


class LayerPatterns:
    """Which layers of a model are meant by a pattern of names.

    A pattern is compared with the whole name of a layer, and with what is left of it without the modules around
    everything: where a LightningModule holds its network in `network`, `layer1.*` means `network.layer1.0` too.

    Args:
        model: Any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.prefixes = ("", *_around_everything(model))
        """What names begin with, none of which tells one layer from another; one is empty."""

    def match(self, pattern: str, layer: str) -> bool:
        """Return whether a layer is meant."""
        return any(
            layer.startswith(prefix) and fnmatchcase(layer.removeprefix(prefix), pattern) for prefix in self.prefixes
        )

    def first(self, by_pattern: Mapping[str, Value], layer: str, otherwise: Value) -> Value:
        """Return the value of the first pattern that means a layer, or another if none does."""
        return next((value for pattern, value in by_pattern.items() if self.match(pattern, layer)), otherwise)

    def check(self, name: str, pattern: str, layers: Collection[str], kind: str = "a layer") -> None:
        """Refuse a pattern that means none of some layers.

        Args:
            name: What the pattern is called in the message.
            pattern: The pattern.
            layers: Names of layers.
            kind: What these layers are, in the message.

        Raises:
            InputError: If it is one; the message has the names that are most like it.
        """
        if not any(self.match(pattern, layer) for layer in layers):
            among = nearest(pattern, layers) or "no layers at all"
            raise InputError(f"expected {name} to match {kind}, got no match among {among}")


def _around_everything(model: nn.Module) -> Iterator[str]:
    """Yield how the names of all parameters begin: with the one child that has any, then with its only one."""
    prefix = ""
    while not list(model.parameters(recurse=False)):
        holding = [(name, child) for name, child in model.named_children() if any(True for _ in child.parameters())]
        if len(holding) != 1:
            return
        (name, model), *_ = holding
        prefix += f"{name}."
        yield prefix


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
    check_patterns(name, numbers)
    return {pattern: check(f"{name}[{pattern}]", number) for pattern, number in numbers.items()}


def check_patterns(name: str, patterns: Collection[str]) -> None:
    """Refuse what no layer can be called.

    Raises:
        InputError: If there is no pattern, or one is no text.
    """
    if not patterns:
        raise InputError(f"expected {name} to name at least one layer pattern, got none")
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise InputError(f"expected {name} to name layers by patterns such as 'layer1.*', got {shown(pattern)}")


def by_layer(
    name: str, numbers: Numbers, layers: Iterable[str], patterns: LayerPatterns, kind: str = "a layer"
) -> dict[str, float]:
    """Return the number of each layer, 0 for those that no pattern matches.

    Args:
        name: What they are called in messages.
        numbers: One, or some by pattern.
        layers: Names of layers.
        patterns: Of the model that has them.
        kind: What these layers are, in messages.

    Raises:
        InputError: If a pattern matches no layer.

    >>> patterns = LayerPatterns(nn.Module())
    >>> by_layer("sparsity", {"body.*": 0.5, "*.1": 0.9}, ["body.0", "body.1", "head.0", "head.1"], patterns)
    {'body.0': 0.5, 'body.1': 0.5, 'head.0': 0.0, 'head.1': 0.9}
    """
    layers = list(dict.fromkeys(layers))
    if not isinstance(numbers, Mapping):
        return dict.fromkeys(layers, numbers)
    for pattern in numbers:
        patterns.check(f"{name}[{pattern}]", pattern, layers, kind)
    return {layer: patterns.first(numbers, layer, 0.0) for layer in layers}
