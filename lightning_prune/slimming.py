"""From a masked model to a smaller one with the same outputs."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling import Coupling, couple
from lightning_prune.errors import InputError
from lightning_prune.proof import Proof, holds, prove
from lightning_prune.surgery import Model, copy_of, cut, replace_tensors, stated_widths
from lightning_prune.tracing import ExampleInput

log = logging.getLogger(__name__)


def slim(model: Model, example_input: ExampleInput) -> Model:
    """Return a copy of `model` without the channels that do nothing, proven to give the same outputs.

    A channel goes when it is exactly zero wherever a layer reads it: its filter, bias and batch-norm scale and shift
    are zero, in every layer that it is coupled with. Channels that the model's code fixes (its outputs, and what
    enters an operator that cannot be followed) stay; the log names them. What is proven is what runs: `forward` in eval
    mode, with inputs of this shape.

    Args:
        model: A masked model. It is not changed.
        example_input: A tensor or a tuple of tensors that `forward` takes.

    Returns:
        A smaller model of the same class, on the same device.

    Raises:
        InputError: If the model cannot be traced with the example input, or gives NaN, of which nothing can be proven.
    """
    coupling = couple(model, example_input)
    proof = prove(model, example_input)
    removed = coupling.removable()
    small = cut(model, coupling, removed)
    if not holds(proof, small):
        small = _cut_what_works(model, coupling, removed, proof)
    for reason, layers in coupling.zero_but_kept(model, removed).items():
        named = ", ".join(f"{layer} ({count})" for layer, count in layers)
        log.warning("slim kept zero filters that %s: %s", reason, named)
    if coupling.unread and bool(removed.any()):
        log.warning("slim left as they are, because forward does not read them: %s", ", ".join(coupling.unread))
    return small


def save_slim(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a slim model's weights and widths as plain data.

    Args:
        model: What `slim` returned, after more training or not.
        path: File to write; `torch.load(path, weights_only=True)` opens it without this package.
    """
    widths = {name: widths for name, module in model.named_modules() if (widths := stated_widths(module))}
    state = model.state_dict()
    torch.save({"state_dict": state, "buffers": _left_out(model, state), "widths": widths}, path)


def load_slim(model: Model, path: str | os.PathLike[str]) -> Model:
    """Shrink a freshly built model to the widths of a slim one and load its weights.

    Args:
        model: A model built by the code that built the dense one; it is changed in place and returned.
        path: A file written by `save_slim`. It is read as plain data: nothing in it is executed.

    Raises:
        InputError: If the file is missing, is not a slim model, or is that of another architecture.
    """
    if not Path(path).is_file():
        raise InputError(f"expected a file written by save_slim, got {path}, which does not exist")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state, buffers, widths = saved["state_dict"], saved["buffers"], saved["widths"]
        small = _tensors({**state, **buffers})
        plain = all(value > 0 for values in widths.values() for value in values.values() if isinstance(value, int))
        if not plain or any(tensor.layout != torch.strided for tensor in small.values()):
            raise ValueError
    except Exception as error:
        raise InputError(f"expected a file written by save_slim, got {path}, which cannot be read as one") from error
    own_state = model.state_dict()
    own = _tensors({**own_state, **_left_out(model, own_state)})
    _check_fit(type(model).__name__, path, own, small)
    modules = dict(model.named_modules())
    if not widths.keys() <= modules.keys():
        name = min(widths.keys() - modules.keys())
        raise InputError(f"expected a slim {type(model).__name__}, got {path}: it tells the widths of a module {name}")
    keep = {
        name: {dim: torch.arange(size) for dim, size in enumerate(tensor.shape) if size != own[name].shape[dim]}
        for name, tensor in small.items()
    }
    replace_tensors(model, {name: dims for name, dims in keep.items() if dims})
    for name, values in widths.items():
        for attribute, value in values.items():
            if attribute in stated_widths(modules[name]):
                setattr(modules[name], attribute, int(value))
    model.load_state_dict(state)
    for name, buffer in _left_out(model, state).items():
        buffer.copy_(buffers[name])
    return model


def _left_out(model: nn.Module, state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the buffers that a model's `state_dict` does not hold, because they are not persistent."""
    return {name: buffer for name, buffer in model.named_buffers(remove_duplicate=False) if name not in state}


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors in a state, which may hold other things too."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _check_fit(kind: str, path: str | os.PathLike[str], own: dict[str, Tensor], small: dict[str, Tensor]) -> None:
    """Raise InputError unless the tensors `small` of a file can be those of a slim version of a model."""
    if own.keys() != small.keys():
        name = min(own.keys() ^ small.keys())
        where = "the file" if name in small else "the model"
        raise InputError(f"expected a slim {kind}, got {path}: only {where} has a tensor {name}")
    for name, tensor in own.items():
        got, most = tuple(small[name].shape), tuple(tensor.shape)
        if len(got) != len(most) or any(new > old for new, old in zip(got, most, strict=True)):
            raise InputError(f"expected {name} in {path} to be of shape {most} or smaller, got {got}")


def _cut_what_works(model: Model, coupling: Coupling, removed: Tensor, proof: Proof) -> Model:
    """Return the smallest model found by cutting one layer after the other, without those that break the outputs."""
    gone = torch.zeros_like(removed)
    small = copy_of(model)
    for name, channels in coupling.by_tensor(removed):
        attempt = cut(model, coupling, gone | channels)
        if holds(proof, attempt):
            gone, small = gone | channels, attempt
        else:
            log.warning("kept the masked channels of %s: the model's code relies on their number", name)
    return small
