"""From a masked model to a smaller one with the same outputs."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.coupling import Coupling, couple
from lightning_prune.errors import InputError
from lightning_prune.interception import suspended
from lightning_prune.nothing import Gone, Nothing
from lightning_prune.proof import Proof, holds, prove
from lightning_prune.quantization import quantization_of
from lightning_prune.structures import Structure
from lightning_prune.surgery import Model, cut, replace_modules, replace_tensors, stated_widths
from lightning_prune.tracing import ExampleInput, stored_tensors

log = logging.getLogger(__name__)


def slim(model: Model, example_input: ExampleInput) -> Model:
    """Return a copy of `model` without the channels, blocks and branches that do nothing, proven to compute the same.

    A channel goes when it is exactly zero wherever a layer reads it: its filter, bias and batch-norm scale and shift
    are zero, in every layer that it is coupled with. Channels that the model's code fixes (its outputs, and what
    enters an operator that cannot be followed) stay; the log names them. A residual block whose last scale and shift
    are zero becomes its shortcut, and a branch of which that is true leaves its concatenation, with all their layers.
    What is proven is what runs: `forward` in eval mode, with inputs of this shape. Of a quantized model it is the float
    one; the copy is quantized alike, with the same ranges.

    Args:
        model: A masked model. It is not changed.
        example_input: A tensor or a tuple of tensors that `forward` takes.

    Returns:
        A smaller model of the same class, on the same device.

    Raises:
        InputError: If the model cannot be traced with the example input, or gives NaN, of which nothing can be proven.
    """
    with suspended():
        return _slim(model, example_input)


def _slim(model: Model, example_input: ExampleInput) -> Model:
    coupling = couple(model, example_input)
    proof = prove(model, example_input)
    silent = coupling.silent(stored_tensors(model))
    removed = coupling.removable(silent)
    gone = coupling.leaving(silent, removed)
    small = cut(model, coupling, removed, gone)
    if not holds(proof, small):
        gone = _remove_what_works(model, coupling, gone, proof)
        removed = coupling.removable(gone)
        gone = coupling.leaving(gone, removed)
        small = _cut_what_works(model, coupling, removed, gone, proof)
    for one in silent:
        if not one.modules:
            log.warning("slim kept the masked %s %s: code outside of its layers computes with it", one.kind, one.name)
    for reason, layers in coupling.zero_but_kept(model, removed, gone).items():
        named = ", ".join(f"{layer} ({count})" for layer, count in layers)
        log.warning("slim kept zero filters that %s: %s", reason, named)
    if coupling.unread and bool(removed.any()):
        log.warning("slim left as they are, because forward does not read them: %s", ", ".join(coupling.unread))
    return small


def save_slim(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a slim model's weights, its widths and the modules that it has lost as plain data.

    Of a quantized model the file holds ranges and step sizes as well, for `load_quantization`.

    Args:
        model: What `slim` returned, after more training or not.
        path: File to write; `torch.load(path, weights_only=True)` opens it without this package.
    """
    widths = {name: widths for name, module in model.named_modules() if (widths := stated_widths(module))}
    gone = {
        name: {"dim": module.dim, "strides": list(module.strides)} if isinstance(module, Nothing) else None
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Nothing | Gone)
    }
    state = model.state_dict()
    saved = {"state_dict": state, "buffers": _left_out(model, state), "widths": widths, "gone": gone}
    quantization = quantization_of(model)
    if quantization is not None:
        saved["quantization"] = quantization.own_state()
    torch.save(saved, path)


def load_slim(model: Model, path: str | os.PathLike[str]) -> Model:
    """Shrink a freshly built model to the widths and modules of a slim one and load its weights.

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
        gone = {name: _as_nothing(name, place, state, buffers) for name, place in saved.get("gone", {}).items()}
    except Exception as error:
        raise InputError(f"expected a file written by save_slim, got {path}, which cannot be read as one") from error
    if "quantization" in saved:
        log.warning(
            "load_slim: %s is of a quantized network, of which this is the float one; "
            "QuantizationAwareTraining.restore quantizes it again",
            path,
        )
    expected = f"expected a slim {type(model).__name__}, got {path}"
    gone = _fitting(model, gone, expected)
    own_state = model.state_dict()
    own = _outside(gone, _tensors({**own_state, **_left_out(model, own_state)}))
    own |= {f"{name}.zeros": new.zeros for name, new in gone.items() if isinstance(new, Nothing)}
    _check_fit(expected, path, own, small)
    modules = _outside(gone, dict(model.named_modules()))
    if not widths.keys() <= modules.keys():
        raise InputError(f"{expected}: it tells the widths of a module {min(widths.keys() - modules.keys())}")
    replace_modules(model, gone)
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


def _as_nothing(name: str, place: dict[str, Any] | None, state: dict[str, Any], buffers: dict[str, Any]) -> nn.Module:
    """Return what a file says stands in the place of a module.

    Raises:
        ValueError: If it is not what `save_slim` writes.
    """
    if place is None:
        return Gone()
    zeros, dim, strides = buffers[f"{name}.zeros"], place["dim"], place["strides"]
    if zeros.ndim != 1 or zeros.any() or f"{name}.zeros" in state:
        raise ValueError
    if not all(type(stride) is int and stride > 0 for stride in strides) or strides[dim] != 1 or dim >= 0:
        raise ValueError
    return Nothing(len(zeros), dim, tuple(strides))


def _fitting(model: nn.Module, gone: dict[str, nn.Module], expected: str) -> dict[str, nn.Module]:
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
        if isinstance(new, Nothing) and len(new.zeros) > max(sizes):
            raise InputError(
                f"{expected}: it has {len(new.zeros)} channels of zeros for {name}, which has {max(sizes)}"
            )
    return {name: new for name, new in gone.items() if type(new) is not type(modules[name])}


def _outside(gone: dict[str, nn.Module], entries: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a dictionary by name that do not lie in modules that are gone."""
    inside = tuple(f"{name}." for name in gone)
    return {name: value for name, value in entries.items() if name not in gone and not name.startswith(inside)}


def _left_out(model: nn.Module, state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the buffers that a model's `state_dict` does not hold, because they are not persistent."""
    quantization = quantization_of(model)
    apart = {id(buffer) for buffer in quantization.buffers()} if quantization is not None else set()
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in state and id(buffer) not in apart}


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the tensors in a state, which may hold other things too."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _check_fit(expected: str, path: str | os.PathLike[str], own: dict[str, Tensor], small: dict[str, Tensor]) -> None:
    """Raise InputError unless the tensors `small` of a file can be those of a slim version of a model."""
    if own.keys() != small.keys():
        name = min(own.keys() ^ small.keys())
        where = "the file" if name in small else "the model"
        raise InputError(f"{expected}: only {where} has a tensor {name}")
    for name, tensor in own.items():
        got, most = tuple(small[name].shape), tuple(tensor.shape)
        if len(got) != len(most) or any(new > old for new, old in zip(got, most, strict=True)):
            raise InputError(f"expected {name} in {path} to be of shape {most} or smaller, got {got}")


def _remove_what_works(model: nn.Module, coupling: Coupling, gone: list[Structure], proof: Proof) -> list[Structure]:
    """Return those of the structures that can be removed, one after the other, without breaking the outputs."""
    works: list[Structure] = []
    for one in gone:
        attempt = [*works, one]
        if holds(proof, cut(model, coupling, coupling.inside(attempt), attempt)):
            works = attempt
        else:
            log.warning("slim kept the masked %s %s: the model's code relies on its shapes", one.kind, one.name)
    return works


def _cut_what_works(model: Model, coupling: Coupling, removed: Tensor, gone: list[Structure], proof: Proof) -> Model:
    """Return the smallest model found by cutting one layer after the other, without those that break the outputs."""
    small = cut(model, coupling, removed, gone)
    if holds(proof, small):
        return small
    lost = coupling.inside(gone)
    small = cut(model, coupling, lost, gone)
    for name, channels in coupling.by_tensor(removed & ~lost):
        attempt = cut(model, coupling, lost | channels, gone)
        if holds(proof, attempt):
            lost, small = lost | channels, attempt
        else:
            log.warning("kept the masked channels of %s: the model's code relies on their number", name)
    return small
