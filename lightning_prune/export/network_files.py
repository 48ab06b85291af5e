"""Finished networks in files of any format: written, found right, and opened again."""

import os
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.export import formats
from lightning_prune.export.export_format import ExportFormat, Network
from lightning_prune.graph import ExampleInput


def _gathered() -> dict[str, ExportFormat]:
    """Return the format of each module in the folder, by its name."""
    modules = [module.name for module in iter_modules(formats.__path__)]
    found = {name.replace("_", "-"): import_module(f"{formats.__name__}.{name}").FORMAT for name in modules}
    return {name: found[name] for name in sorted(found, key=lambda name: (found[name].opened_by, name))}


EXPORT_FORMATS = _gathered()
"""All of them, by name."""


def write_network(module: nn.Module, example_input: ExampleInput, path: str | os.PathLike[str], format: str) -> None:
    """Write a network in a format, and check that the file computes the same.

    Args:
        module: It is written as it is in eval mode, and stays as it was; a quantized one with its rounded weights.
        example_input: Arguments of `forward`; the first axis of those as long as the first one is the batch.
        path: The file. What is already there stays until the new one is found right.
        format: A key of `EXPORT_FORMATS`.

    Raises:
        InputError: If there is no such format, a package is missing, or the network cannot be written in it.
        RuntimeError: If the file computes something else.
    """
    _named(format).write(module, example_input, Path(path))


def open_network(path: str | os.PathLike[str], format: str, module: nn.Module) -> Network:
    """Open a file again.

    Args:
        path: What `write_network` has written.
        format: In which format.
        module: Built by the same code as the one that was written, or that one itself: a packed file holds only what
            goes into it.

    Returns:
        What computes a batch.

    Raises:
        InputError: If there is no such format, a package is missing, or the file is damaged.
    """
    return _named(format).open(Path(path), module)


def _named(name: str) -> ExportFormat:
    if name not in EXPORT_FORMATS:
        raise InputError(f"expected format to be one of {', '.join(EXPORT_FORMATS)}, got {name}")
    return EXPORT_FORMATS[name]
