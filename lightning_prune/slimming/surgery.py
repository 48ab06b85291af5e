"""Copies of models without some channels, and without whole modules."""

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.modules.conv import _ConvNd

from lightning_prune.errors import InputError
from lightning_prune.graph import holder, one_thread, stored_tensors
from lightning_prune.slimming.channels.coupling import Coupling
from lightning_prune.slimming.channels.removal import Removal
from lightning_prune.slimming.channels.replacements import Replacement
from lightning_prune.slimming.channels.sizes import Kept, group_counts, kept_positions
from lightning_prune.slimming.size_attributes import widths
from lightning_prune.slimming.zero_modules import ZeroOutput, ZeroPassThrough

Model = TypeVar("Model", bound=nn.Module)


def copy_without(model: Model, coupling: Coupling, removal: Removal) -> Model:
    """Return a copy of `model` without what goes.

    Args:
        model: The model, which is not changed.
        coupling: Its channels.
        removal: What goes.
    """
    with one_thread():
        small = copy_of(model)
        outermost = [one for one in removal.whole if not any(one.region < other.region for other in removal.whole)]
        lost = [module for one in outermost for module in one.modules]
        replace_modules(small, {module.name: _in_place_of(module, coupling, removal) for module in lost})
        tensors = stored_tensors(small)
        kept = {name: dims for name, dims in kept_positions(coupling, removal).items() if name in tensors}
        replace_tensors(small, kept)
        _renumber_gathers(small, coupling, removal)
        _set_group_counts(small, group_counts(coupling, kept))
        for module in small.modules():
            for attribute, value in widths(module).items():
                setattr(module, attribute, value)
        return small


def _renumber_gathers(small: nn.Module, coupling: Coupling, removal: Removal) -> None:
    """Let index buffers that choose among channels say where these lie now."""
    tensors = stored_tensors(small)
    for name, channels in coupling.gathers.items():
        if name in tensors:
            position = (~removal.channels[channels]).cumsum(0) - 1
            index = tensors[name]
            index.copy_(position.to(index.device)[index.long()])


def _set_group_counts(small: nn.Module, counts: dict[str, int]) -> None:
    """Tell convolutions and group norms how many groups they have left, by the names of their weights."""
    tensors = stored_tensors(small)
    groups = {id(tensors[name]): number for name, number in counts.items()}
    for name, tensor in stored_tensors(small, duplicates=True).items():
        module = small.get_submodule(holder(name))
        if isinstance(module, _ConvNd) and id(tensor) in groups:
            module.groups = groups[id(tensor)]
        elif isinstance(module, nn.GroupNorm) and id(tensor) in groups:
            module.num_groups = groups[id(tensor)]


def copy_of(model: Model) -> Model:
    """Return a deep copy that runs its own code: a compiled method would still be the original's.

    Raises:
        InputError: If something that the model holds cannot be copied.
    """
    try:
        small = copy.deepcopy(model)
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition('. ')[0]}"
        raise InputError(
            f"expected a {type(model).__name__} that copy.deepcopy can copy, got {reason}; drop or detach what "
            "training has left in its attributes"
        ) from error
    for module in small.modules():
        if isinstance(module, OptimizedModule):  # which compiles its copy anew
            continue
        for name, value in list(vars(module).items()):
            if getattr(value, "_torchdynamo_orig_callable", None) is not None:
                delattr(module, name)
        if "_compiler_ctx" in vars(module):  # where a LightningModule notes that it is compiled
            vars(module)["_compiler_ctx"] = None
    return small


def _in_place_of(module: Replacement, coupling: Coupling, removal: Removal) -> nn.Module:
    """Return what takes the place of a module that goes, of the width that is left of it."""
    zeros = module.zeros
    if zeros is None:
        return ZeroPassThrough()
    width = zeros.width if zeros.labels is None else int((~removal.channels[coupling.channel[zeros.labels]]).sum())
    return ZeroOutput(width, zeros.dim, zeros.strides)


def replace_modules(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    """Put other modules in the places of some, wherever these are registered.

    Args:
        model: It is changed in place.
        modules: By the name of a module that has parameters what takes its place, in the same number format, on the
            same device and in the same mode.
    """
    by_old = {}
    for name, new in modules.items():
        old = model.get_submodule(name)
        first = next(iter(stored_tensors(old).values()))
        by_old[id(old)] = new.to(first.device, first.dtype).train(old.training)
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            parent._modules[key] = by_old.get(id(child), child)


def replace_tensors(model: nn.Module, kept: Kept) -> None:
    """Cut the stored tensors of a model down, wherever they are used.

    Args:
        model: It is changed in place.
        kept: The positions that stay; see `Kept`.
    """
    tensors = stored_tensors(model, duplicates=True)
    smaller: dict[int, Tensor] = {}
    for name, dims in kept.items():
        old = tensors[name]
        tensor = old.detach()
        for dim, positions in dims.items():
            tensor = tensor.index_select(dim, positions.to(tensor.device))
        smaller[id(old)] = nn.Parameter(tensor, old.requires_grad) if isinstance(old, nn.Parameter) else tensor
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for key, value in store.items():
                if id(value) in smaller:
                    store[key] = smaller[id(value)]  # type: ignore[assignment]
