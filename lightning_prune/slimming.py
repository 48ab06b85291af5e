"""From a masked model to a smaller one with the same outputs."""

import copy
import logging
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from lightning_prune.coupling import Coupling, couple
from lightning_prune.errors import InputError
from lightning_prune.tracing import ExampleInput, as_arguments, evaluating, stored_tensors

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)
Keep = dict[str, dict[int, Tensor]]

TOLERANCE = 1e-4
"""Largest difference between the outputs of the slim and the masked model, relative to the largest output."""


def slim(model: Model, example_input: ExampleInput) -> Model:
    """Return a copy of `model` without the channels that do nothing, proven to give the same outputs.

    A channel goes when it is exactly zero wherever a layer reads it: its filter, bias and batch-norm scale and shift
    are zero, in every layer that it is coupled with. Channels that the model's code fixes (its outputs, and what
    enters an operator that cannot be followed) stay; the log names them.

    Args:
        model: A masked model. It is not changed.
        example_input: A tensor or a tuple of tensors that `forward` takes.

    Returns:
        A smaller model of the same class, on the same device.

    Raises:
        InputError: If the model cannot be traced with the example input.
    """
    coupling = couple(model, example_input)
    inputs = _probes(model, example_input)
    expected = [_outputs(model, probe) for probe in inputs]
    removed = coupling.removable()
    small = _cut(model, coupling, removed)
    if not _same(small, inputs, expected):
        small = _cut_what_works(model, coupling, removed, inputs, expected)
    for reason, layers in coupling.zero_but_kept(model, removed).items():
        named = ", ".join(f"{layer} ({count})" for layer, count in layers)
        log.warning("slim kept zero filters that %s: %s", reason, named)
    return small


def save_slim(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a slim model's weights and widths as plain data.

    Args:
        model: What `slim` returned, after more training or not.
        path: File to write; `torch.load(path, weights_only=True)` opens it without this package.
    """
    widths = {name: widths for name, module in model.named_modules() if (widths := _widths(module))}
    torch.save({"state_dict": model.state_dict(), "widths": widths}, path)


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
        state, widths = saved["state_dict"], saved["widths"]
    except Exception as error:
        raise InputError(f"expected a file written by save_slim, got {path}, which cannot be read as one") from error
    own = model.state_dict()
    if own.keys() != state.keys():
        name = min(own.keys() ^ state.keys())
        where = "the file" if name in state else "the model"
        raise InputError(f"expected a slim {type(model).__name__}, got {path}: only {where} has a tensor {name}")
    for name, tensor in own.items():
        if tensor.ndim != state[name].ndim or any(new > old for new, old in zip(state[name].shape, tensor.shape)):
            got, most = tuple(state[name].shape), tuple(tensor.shape)
            raise InputError(f"expected {name} in {path} to be of shape {most} or smaller, got {got}")
    keep = {
        name: {dim: torch.arange(size) for dim, size in enumerate(tensor.shape) if size != own[name].shape[dim]}
        for name, tensor in state.items()
    }
    _replace_tensors(model, {name: dims for name, dims in keep.items() if dims})
    modules = dict(model.named_modules())
    for name, values in widths.items():
        for attribute, value in values.items():
            if attribute in _widths(modules[name]):
                setattr(modules[name], attribute, int(value))
    model.load_state_dict(state)
    return model


def _probes(model: nn.Module, example_input: ExampleInput) -> list[tuple[Tensor, ...]]:
    """Return the example input and noise of the same shape, on the model's device."""
    device = next(iter(stored_tensors(model).values())).device
    example = tuple(argument.to(device) for argument in as_arguments(example_input))
    generator = torch.Generator().manual_seed(0)
    noise = tuple(
        torch.randn(argument.shape, generator=generator).to(argument) if argument.is_floating_point() else argument
        for argument in example
    )
    return [example, noise]


def _outputs(model: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        return [output for output in tree_leaves(model(*arguments)) if isinstance(output, Tensor)]


def _same(model: nn.Module, inputs: list[tuple[Tensor, ...]], expected: list[list[Tensor]]) -> bool:
    """Return whether a model runs on `inputs` and gives the `expected` outputs up to `TOLERANCE`."""
    for arguments, outputs in zip(inputs, expected, strict=True):
        try:
            found = _outputs(model, arguments)
        except Exception:  # code of the model that relies on the old widths may fail in any way
            return False
        for output, reference in zip(found, outputs, strict=True):
            if output.shape != reference.shape:
                return False
            difference = (output - reference).abs().max() if output.numel() else torch.zeros(())
            if not difference <= TOLERANCE * reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny):
                return False
    return True


def _cut_what_works(
    model: Model, coupling: Coupling, removed: Tensor, inputs: list[tuple[Tensor, ...]], expected: list[list[Tensor]]
) -> Model:
    """Return the smallest model found by cutting one group after the other, without those that break the outputs."""
    cut = torch.zeros_like(removed)
    small = _copy(model)
    for group in coupling.groups():
        units = coupling.without([group], [torch.ones(group.size, dtype=torch.bool)])
        candidate = cut | (units & removed)
        if torch.equal(candidate, cut):
            continue
        attempt = _cut(model, coupling, candidate)
        if _same(attempt, inputs, expected):
            cut, small = candidate, attempt
        else:
            layers = ", ".join(group.layers)
            log.warning("kept the masked channels of %s: the model's code relies on their number", layers)
    return small


def _cut(model: Model, coupling: Coupling, removed: Tensor) -> Model:
    """Return a copy of `model` without the `removed` channels."""
    small = _copy(model)
    keep = coupling.keep(removed)
    _replace_tensors(small, keep)
    tensors = stored_tensors(small)
    for gather in coupling.gathers:
        position = (~removed[coupling.channel[gather.source]]).cumsum(0) - 1
        index = tensors[gather.name]
        index.copy_(position.to(index.device)[index.long()])
    groups = coupling.group_counts(keep)
    for name, module in small.named_modules():
        if isinstance(module, _ConvNd) and f"{name}.weight".removeprefix(".") in groups:
            module.groups = groups[f"{name}.weight".removeprefix(".")]
        for attribute, value in _widths(module).items():
            setattr(module, attribute, value)
    return small


def _copy(model: Model) -> Model:
    """Return a deep copy that runs its own code: a compiled method would still be the original's."""
    small = copy.deepcopy(model)
    for module in small.modules():
        for name, value in list(vars(module).items()):
            if getattr(value, "_torchdynamo_orig_callable", None) is not None:
                delattr(module, name)
        if "_compiler_ctx" in vars(module):  # where a LightningModule notes that it is compiled
            module._compiler_ctx = None
    return small


def _replace_tensors(model: nn.Module, keep: Keep) -> None:
    """Cut the stored tensors of a model down to the positions in `keep`, wherever they are used."""
    tensors = stored_tensors(model)
    smaller: dict[int, Tensor] = {}
    for name, dims in keep.items():
        tensor = tensors[name].detach()
        for dim, positions in dims.items():
            tensor = tensor.index_select(dim, positions.to(tensor.device))
        old = tensors[name]
        smaller[id(old)] = (
            nn.Parameter(tensor, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else tensor
        )
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for key, value in store.items():
                if id(value) in smaller:
                    store[key] = smaller[id(value)]  # type: ignore[assignment]


def _widths(module: nn.Module) -> dict[str, int]:
    """Return the attributes by which a module states its widths, read off its tensors."""
    weight: Any = module._parameters.get("weight", None)
    if isinstance(module, _ConvNd):
        rows, columns = module.weight.shape[:2]
        if module.transposed:
            rows, columns = columns, rows
            return {"in_channels": columns, "out_channels": rows * module.groups, "groups": module.groups}
        return {"in_channels": columns * module.groups, "out_channels": rows, "groups": module.groups}
    if isinstance(module, nn.Linear):
        return {"in_features": module.weight.shape[1], "out_features": module.weight.shape[0]}
    if isinstance(module, _BatchNorm):
        vector = weight if weight is not None else module.running_mean
        return {} if vector is None else {"num_features": len(vector)}
    return {}
