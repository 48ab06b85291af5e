"""From a masked model to a smaller one with the same outputs."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.coupling import Coupling, couple
from lightning_prune.errors import InputError
from lightning_prune.surgery import Model, copy_of, cut, replace_tensors, stated_widths
from lightning_prune.tracing import ExampleInput, as_arguments, evaluating, stored_tensors

log = logging.getLogger(__name__)

Proof = list[tuple[tuple[Tensor, ...], list[Tensor]]]

TOLERANCE = 1e-4
"""Largest difference between the outputs of the slim and the masked model, relative to the largest output.

Less than single precision is held to eight times the distance from 1 to the next number.
"""


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
    proof = _proof(model, example_input)
    removed = coupling.removable()
    small = cut(model, coupling, removed)
    if not _holds(proof, small):
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


def _proof(model: nn.Module, example_input: ExampleInput) -> Proof:
    """Return the example input and noise of the same shape, each with what the model makes of it.

    Raises:
        InputError: If all outputs hold NaN, which compares with nothing.
    """
    device = next(iter(stored_tensors(model).values())).device
    example = tuple(argument.to(device) for argument in as_arguments(example_input))
    generator = torch.Generator().manual_seed(0)
    noise = tuple(
        torch.randn(argument.shape, generator=generator).to(argument) if argument.is_floating_point() else argument
        for argument in example
    )
    proof = [(arguments, _outputs(model, arguments)) for arguments in (example, noise)]
    proof = [(arguments, outputs) for arguments, outputs in proof if not any(out.isnan().any() for out in outputs)]
    if not proof:
        raise InputError(f"expected a {type(model).__name__} with finite outputs, got NaN: its weights have diverged")
    return proof


def _outputs(model: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    with evaluating(model), torch.compiler.set_stance("force_eager"), _full_precision():
        return [output for output in tree_leaves(model(*arguments)) if isinstance(output, Tensor)]


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep GPUs from rounding float32 to TF32, which they may do for one width of a layer and not for another."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    allowed = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = allowed


def _holds(proof: Proof, model: nn.Module) -> bool:
    """Return whether a model runs and gives the outputs in `proof` up to `TOLERANCE`."""
    for arguments, expected in proof:
        try:
            found = _outputs(model, arguments)
        except Exception:  # code of the model that relies on the old widths may fail in any way
            return False
        if [output.shape for output in found] != [output.shape for output in expected]:
            return False
        if not all(_close(output, reference) for output, reference in zip(found, expected, strict=True)):
            return False
    return True


def _close(output: Tensor, expected: Tensor) -> bool:
    if not (expected.is_floating_point() or expected.is_complex()):
        return torch.equal(output, expected)
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    tolerance = max(TOLERANCE, 8 * torch.finfo(expected.dtype).eps)
    return torch.allclose(output, expected, rtol=0.0, atol=tolerance * scale)


def _cut_what_works(model: Model, coupling: Coupling, removed: Tensor, proof: Proof) -> Model:
    """Return the smallest model found by cutting one layer after the other, without those that break the outputs."""
    gone = torch.zeros_like(removed)
    small = copy_of(model)
    for name, channels in coupling.by_tensor(removed):
        attempt = cut(model, coupling, gone | channels)
        if _holds(proof, attempt):
            gone, small = gone | channels, attempt
        else:
            log.warning("kept the masked channels of %s: the model's code relies on their number", name)
    return small
