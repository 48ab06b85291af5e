"""How far what was zeroed may grow back."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class NormLimits:
    """The largest norms to which slices of weights may grow.

    Args:
        limits: By parameter name, `inf` for no limit; `(filters, 1, 1, 1)` for the filters of a convolution.
    """

    def __init__(self, limits: Mapping[str, Tensor] | None = None) -> None:
        self.limits: dict[str, Tensor] = dict(limits or {})

    def note(self, name: str, weight: Tensor, mask: Tensor, factor: float) -> None:
        """Limit what is about to be zeroed to a multiple of the norm that it has; free what stays.

        Args:
            name: Name of the weight.
            weight: A tensor of any shape, not zeroed yet.
            mask: 1 = kept, of the weight's number format, longer than 1 along the dimension of the slices alone.
            factor: The multiple. What is zero has not grown back at all, and keeps the limit that it had.
        """
        limit = factor * slice_norms(weight, mask)
        before = self.limits.get(name, torch.full_like(limit, math.inf))
        limit = torch.where(limit == 0, before, limit)
        self.limits[name] = limit.masked_fill(mask == 1, math.inf)

    def move_to(self, module: nn.Module) -> None:
        """Bring the limits to the devices and number formats of a module's parameters."""
        self.limits = {name: limit.to(module.get_parameter(name)) for name, limit in self.limits.items()}

    def enforce(self, module: nn.Module) -> None:
        """Scale down what has grown beyond its limit in a module."""
        limit_norms([module.get_parameter(name).data for name in self.limits], self.limits.values())


def slice_norms(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the L2 norms of the slices of `tensor` along the dimensions on which `like` is longer than 1.

    Args:
        tensor: One of any shape.
        like: Of as many dimensions; the norms have its shape.
    """
    dims = [dim for dim, size in enumerate(like.shape) if size == 1]
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dims, keepdim=True)
    return norms


@torch.no_grad()
def limit_norms(tensors: Iterable[Tensor], limits: Iterable[Tensor]) -> None:
    """Scale down, in place, every slice whose L2 norm is above its limit.

    Args:
        tensors: Tensors of any shapes.
        limits: For each the largest norms of its slices, positive, `inf` for no limit, `(filters, 1, 1, 1)` for the
            filters of a convolution.
    """
    tensors, limits = list(tensors), list(limits)
    if tensors:
        norms = [slice_norms(tensor, limit) for tensor, limit in zip(tensors, limits, strict=True)]
        factors = torch._foreach_div(limits, norms)
        torch._foreach_clamp_max_(factors, 1.0)
        torch._foreach_mul_(tensors, factors)
