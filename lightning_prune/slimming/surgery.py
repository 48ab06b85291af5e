"""Cut channels out of modules, and whole modules out of models."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_prune.errors import InputError
from lightning_prune.graph import holder, one_thread, stored_tensors
from lightning_prune.slimming.channels.blocks import BlockOrBranch
from lightning_prune.slimming.channels.coupling import Coupling
from lightning_prune.slimming.channels.replacements import Replacement
from lightning_prune.slimming.zero_modules import Gone, Nothing

Model = TypeVar("Model", bound=nn.Module)


def cut(model: Model, coupling: Coupling, removed: Tensor, gone: Sequence[BlockOrBranch] = ()) -> Model:
    """Return a copy of `model` without the `removed` channels and the structures that are `gone`.

    Args:
        model: The model, which is not changed.
        coupling: Its channels.
        removed: `(labels,)` bool, the channels that go.
        gone: The blocks and branches that go.
    """
    with one_thread():
        return _cut(model, coupling, removed, gone)


def _cut(model: Model, coupling: Coupling, removed: Tensor, gone: Sequence[BlockOrBranch]) -> Model:
    small = copy_of(model)
    outermost = [one for one in gone if not any(one.region < other.region for other in gone)]
    lost = [module for one in outermost for module in one.modules]
    replace_modules(small, {module.name: _in_place_of(module, coupling, removed) for module in lost})
    tensors = stored_tensors(small)
    keep = {name: dims for name, dims in coupling.keep(removed, gone).items() if name in tensors}
    replace_tensors(small, keep)
    tensors = stored_tensors(small)
    for name, channels in coupling.gathers.items():
        if name in tensors:
            position = (~removed[channels]).cumsum(0) - 1
            index = tensors[name]
            index.copy_(position.to(index.device)[index.long()])
    groups = {id(tensors[name]): number for name, number in coupling.group_counts(keep).items()}
    for name, tensor in stored_tensors(small, duplicates=True).items():
        module = small.get_submodule(holder(name))
        if isinstance(module, _ConvNd) and id(tensor) in groups:
            module.groups = groups[id(tensor)]
        elif isinstance(module, nn.GroupNorm) and id(tensor) in groups:
            module.num_groups = groups[id(tensor)]
    for module in small.modules():
        for attribute, value in _widths(module).items():
            setattr(module, attribute, value)
    return small


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


def _in_place_of(module: Replacement, coupling: Coupling, removed: Tensor) -> nn.Module:
    """Return what takes the place of a module that goes, of the width that the `removed` channels leave."""
    zeros = module.zeros
    if zeros is None:
        return Gone()
    width = zeros.width if zeros.labels is None else int((~removed[coupling.channel[zeros.labels]]).sum())
    return Nothing(width, zeros.dim, zeros.strides)


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


def replace_tensors(model: nn.Module, keep: dict[str, dict[int, Tensor]]) -> None:
    """Cut the stored tensors of a model down, wherever they are used.

    Args:
        model: It is changed in place.
        keep: The positions that stay, by tensor name and dimension.
    """
    tensors = stored_tensors(model, duplicates=True)
    smaller: dict[int, Tensor] = {}
    for name, dims in keep.items():
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


_RESTATED = "_restated_sizes"
"""The attribute in which a module of a slim model keeps the names of those that its code reads and `slim` changed."""


def restate(module: nn.Module, sizes: Mapping[str, int | list[int] | tuple[int, ...]]) -> None:
    """Change attributes from which the code of a module takes sizes, and note that they are changed.

    Args:
        module: It is changed in place.
        sizes: New values by the names of attributes that it has.
    """
    for name, value in sizes.items():
        setattr(module, name, value)
    if sizes:
        vars(module)[_RESTATED] = sorted({*vars(module).get(_RESTATED, ()), *sizes})


def stated_widths(module: nn.Module) -> dict[str, Any]:
    """Return the attributes by which a module states its widths, those that its code reads and `slim` changed too."""
    restated = {name: getattr(module, name) for name in vars(module).get(_RESTATED, ())}
    return restated | _widths(module)


def _widths(module: nn.Module) -> dict[str, int]:
    if isinstance(module, _ConvNd):
        rows, columns = module.weight.shape[:2]
        if module.transposed:
            return {"in_channels": rows, "out_channels": columns * module.groups, "groups": module.groups}
        return {"in_channels": columns * module.groups, "out_channels": rows, "groups": module.groups}
    if isinstance(module, nn.Linear):
        return {"in_features": module.weight.shape[1], "out_features": module.weight.shape[0]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": len(module.weight)}
    if isinstance(module, nn.GroupNorm) and module.affine:
        return {"num_channels": len(module.weight), "num_groups": module.num_groups}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": module.weight.shape[1]}
    if isinstance(module, _NormBase):
        vector = module.weight if module.affine else module.running_mean
        return {} if vector is None else {"num_features": len(vector)}
    return {}
