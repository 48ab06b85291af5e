"""Where a callback takes the example input from, with which it traces the model."""

import inspect
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.graph import as_arguments


def check_example(example_input: Any) -> Any:
    """Return an example input if it can be one: None, a tensor, or a list or a dictionary of tensors.

    Raises:
        InputError: If it is anything else.
    """
    if example_input is not None:
        entries = list(example_input.values()) if isinstance(example_input, Mapping) else example_input
        as_arguments(tuple(entries) if isinstance(entries, list) else entries)
    return example_input


def given_input(module: LightningModule, example_input: Any) -> tuple[Tensor, ...] | None:
    """Return the example input that is known before training: the callback's argument, or the module's own array.

    These are the arguments of `forward`, `(n, ...)` each as a rule, and of any shape that it takes.

    Raises:
        InputError: If it is not made of tensors.
    """
    example = module.example_input_array if example_input is None else example_input
    if isinstance(example, Mapping):
        return _by_name(module, example)
    return None if example is None else as_arguments(tuple(example) if isinstance(example, list) else example)


def batch_input(module: LightningModule, batch: Any) -> tuple[Tensor, ...]:
    """Return what `forward` takes of a training batch: the batch itself, its first entries, or its entries by name.

    Nothing is drawn for it: it is the batch with which training is about to begin, and the shapes are that batch's,
    `(n, channels, height, width)` of images.

    Raises:
        InputError: If the batch holds no tensor where one is looked for.
    """
    if isinstance(batch, Mapping):
        return _by_name(module, batch)
    entries = list(batch) if isinstance(batch, (tuple, list)) and batch else [batch]
    if isinstance(entries[0], Mapping):
        return _by_name(module, entries[0])
    parameters = inspect.signature(module.forward).parameters.values()
    needed = sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    found = entries[: max(1, needed)]
    if not all(isinstance(entry, Tensor) for entry in found):
        raise InputError(
            f"expected the input of {type(module).__name__}.forward first in a training batch, got "
            f"{', '.join(type(entry).__name__ for entry in found)}; pass example_input to the callback or set the "
            "module's example_input_array"
        )
    return tuple(found)


def _by_name(module: LightningModule, batch: Mapping[Any, Any]) -> tuple[Tensor, ...]:
    """Return the entries of a dictionary that `forward` takes, in its order."""
    names = list(inspect.signature(module.forward).parameters)
    found = [batch[name] for name in names if name in batch]
    if not found or not all(isinstance(value, Tensor) for value in found):
        raise InputError(
            f"expected a batch with tensors named like the arguments of {type(module).__name__}.forward ("
            f"{', '.join(names)}), got {', '.join(map(str, batch))}; pass example_input to the callback"
        )
    return tuple(found)
