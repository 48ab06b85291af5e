"""The attributes in which modules say their sizes."""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

SizeValue = int | list[int] | tuple[int, ...]

_CHANGED = "_changed_size_attributes"
"""The attribute in which a module of a slim model keeps the names of those that its code reads and `slim` changed."""


def set_size_attributes(module: nn.Module, sizes: Mapping[str, SizeValue]) -> None:
    """Change attributes from which the code of a module takes sizes, and note that they are changed.

    Args:
        module: It is changed in place.
        sizes: New values by the names of attributes that it has.
    """
    for name, value in sizes.items():
        setattr(module, name, value)
    if sizes:
        vars(module)[_CHANGED] = sorted({*vars(module).get(_CHANGED, ()), *sizes})


def size_attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes in which a module says its widths, those that its code reads and `slim` changed too."""
    changed = {name: getattr(module, name) for name in vars(module).get(_CHANGED, ())}
    return changed | widths(module)


def widths(module: nn.Module) -> dict[str, int]:
    """Return the widths of one of PyTorch's layers by the names of its attributes, as its tensors have them."""
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
