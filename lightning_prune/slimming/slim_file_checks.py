"""What the file of a slim model says, none of which is trusted before it is checked, and whether that fits a model."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.graph import stored_tensors
from lightning_prune.slimming.zero_modules import ZeroOutput, ZeroPassThrough


class SlimFileParts(NamedTuple):
    """What a file says, as far as that can be checked without a model."""

    state: dict[str, Any]
    buffers: dict[str, Tensor]
    widths: dict[str, dict[str, Any]]
    gone: dict[str, nn.Module]
    of: str
    """Of which class it is, for messages."""


def checked_file_parts(saved: Mapping[str, Any], source: str | os.PathLike[str]) -> SlimFileParts:
    """Return the parts of what `slim_state` has returned, perhaps in an earlier version.

    Raises:
        InputError: If it has others.
    """
    try:
        state, buffers, widths, gone = saved["state_dict"], saved["buffers"], saved["widths"], saved.get("gone", {})
        modules = {name: _zero_module(name, place, state, buffers) for name, place in gone.items()}
        stored = [*tensors(state).values(), *buffers.values()]
        names = [*state, *buffers, *gone, *widths, *(attribute for values in widths.values() for attribute in values)]
        readable = all(type(name) is str and name.isprintable() for name in names)
        if not readable or any(tensor.layout != torch.strided for tensor in stored):
            raise ValueError
        of = saved.get("build", {}).get("_target_", "")
        return SlimFileParts(
            state, buffers, widths, modules, f" of {of}" if type(of) is str and of.isprintable() else ""
        )
    except Exception as error:
        raise unreadable(source) from error


def unreadable(source: str | os.PathLike[str]) -> InputError:
    """Return what is raised of a file that is no slim model's."""
    return InputError(f"expected a file written by save_slim, got {source}, which cannot be read as one")


def _zero_module(name: str, place: dict[str, Any] | None, state: dict[str, Any], buffers: dict[str, Any]) -> nn.Module:
    """Return what a file says stands in the place of a module.

    Raises:
        ValueError: If it is not what `save_slim` writes.
    """
    if place is None:
        return ZeroPassThrough()
    zeros, dim, strides = buffers[f"{name}.zeros"], place["dim"], place["strides"]
    if zeros.ndim != 1 or zeros.any() or f"{name}.zeros" in state:
        raise ValueError
    if not all(type(stride) is int and stride > 0 for stride in strides) or strides[dim] != 1 or dim >= 0:
        raise ValueError
    return ZeroOutput(len(zeros), dim, tuple(strides))


def replacements_for(model: nn.Module, gone: dict[str, nn.Module], expected: str) -> dict[str, nn.Module]:
    """Return the modules of a model that are to be replaced, without those that have been.

    Raises:
        InputError: If a model has no such modules, or too narrow ones.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, new in gone.items():
        old = modules.get(name) if name else None
        sizes = [size for tensor in stored_tensors(old).values() for size in tensor.shape] if old is not None else []
        if old is None or not (sizes or isinstance(new, type(old))):
            raise InputError(f"{expected}: it tells that a module {name or 'without a name'} is gone")
        if isinstance(new, ZeroOutput) and len(new.zeros) > max(sizes):
            raise InputError(
                f"{expected}: it has {len(new.zeros)} channels of zeros for {name}, which has {max(sizes)}"
            )
    return {name: new for name, new in gone.items() if type(new) is not type(modules[name])}


def outside(gone: Mapping[str, nn.Module], entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a dictionary by name that do not lie in modules that are gone."""
    inside = tuple(f"{name}." for name in gone)
    return {name: value for name, value in entries.items() if name not in gone and not name.startswith(inside)}


def tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors, of any shape, in a state, which may hold other things too."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def check_fit(expected: str, source: str | os.PathLike[str], own: Mapping[str, Any], small: Mapping[str, Any]) -> None:
    """Raise InputError unless the entries `small` of a state can be those of a slim version of a model."""
    if own.keys() != small.keys():
        name = min(own.keys() ^ small.keys())
        where = "the file" if name in small else "the model"
        raise InputError(f"{expected}: only {where} has a tensor {name}")
    for name, entry in own.items():
        most, got = (tuple(value.shape) if isinstance(value, Tensor) else None for value in (entry, small[name]))
        if most is None and got is None:
            continue
        fits = most is not None and got is not None and len(got) == len(most)
        if not fits or any(new > old for new, old in zip(got or (), most or (), strict=True)):
            raise InputError(f"expected {name} in {source} to be of shape {most} or smaller, got {got}")
        if entry.is_floating_point() != small[name].is_floating_point():
            raise InputError(f"expected {name} in {source} to be of {entry.dtype}, got {small[name].dtype}")


def check_widths(expected: str, modules: Mapping[str, nn.Module], widths: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError unless modules have these attributes, at least as large."""
    for name, values in widths.items():
        if name not in modules:
            raise InputError(f"{expected}: it tells the widths of a module {name}")
        for attribute, new in values.items():
            old = vars(modules[name]).get(attribute)
            if not _is_narrower(new, old):
                raise InputError(
                    f"{expected}: it tells {attribute}={new} of {name}, which has {'none' if old is None else old}"
                )


def _is_narrower(new: Any, old: Any) -> bool:
    """Return whether a number, or each of some, is at least 1 and not above another."""
    if isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        return all(map(_is_narrower, new, old))
    return type(new) is int and type(old) is int and 0 < new <= old
