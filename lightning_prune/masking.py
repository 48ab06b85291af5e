"""From scores to masks, with exact counts, and from masks to weights that stay at zero."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.criteria.mix import Mix
from lightning_prune.errors import InputError

Criterion = Callable[[Tensor], Tensor]
"""Scores of `(n_units, unit_size)` weights, `(n_units,)`; higher is kept."""

Rounding = Literal["floor", "round"]


def check_sparsity(sparsity: float, name: str = "sparsity") -> float:
    """Return `sparsity` if it is a fraction of units that can be removed.

    Raises:
        InputError: If it is not a number in [0, 1).
    """
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity < 1:
        raise InputError(f"expected {name} in [0, 1), got {sparsity!r}")
    return float(sparsity)


def count(n_units: int, sparsity: float, rounding: Rounding = "round") -> int:
    """Return how many of `n_units` a sparsity removes, never all of them.

    Args:
        n_units: Number of units.
        sparsity: Fraction of units, in [0, 1).
        rounding: `"round"` to the nearest (half to even), or `"floor"` as the soft-filter-pruning papers count.

    >>> [count(n, s, "floor") for n, s in ((10, 0.1), (16, 0.3), (20, 0.2), (32, 0.3), (64, 0.4))]
    [1, 4, 4, 9, 25]
    """
    wanted = n_units * sparsity
    number = math.floor(wanted + 1e-9) if rounding == "floor" else round(wanted)
    return max(0, min(number, n_units - 1))


def lowest(scores: Tensor, number: int) -> Tensor:
    """Return `(n_units,)` bool, True for the `number` lowest scores; of equal scores the first goes first.

    Raises:
        InputError: If a score is not a number.
    """
    if scores.isnan().any():
        raise InputError("expected finite weights to score, got NaN: the training has diverged")
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[scores.argsort(stable=True)[:number]] = True
    return chosen


def prune(units: Tensor, criterion: Criterion | Mix, sparsity: float, rounding: Rounding = "round") -> Tensor:
    """Return which units go.

    Args:
        units: `(n_units, unit_size)` weights.
        criterion: What scores them.
        sparsity: Fraction of units that go, in [0, 1).
        rounding: How their number is rounded; see `count`.

    Returns:
        `(n_units,)` bool, True = pruned.
    """
    if not isinstance(criterion, Mix):
        return lowest(criterion(units), count(len(units), sparsity, rounding))
    pruned = prune(units, criterion.first, criterion.share * sparsity, rounding)
    rest = (~pruned).nonzero().reshape(-1)
    number = min(count(len(units), (1 - criterion.share) * sparsity, rounding), len(rest) - 1)
    pruned[rest[lowest(criterion.then(units[rest]), number)]] = True
    return pruned


@torch.no_grad()
def apply_masks(tensors: Iterable[Tensor], masks: Iterable[Tensor]) -> None:
    """Zero, in place, what the masks remove; what is not finite stays visible.

    Args:
        tensors: Tensors of any shapes.
        masks: One for each, of its number format, 1 = kept, of a shape that broadcasts over it.
    """
    tensors = list(tensors)
    if tensors:
        torch._foreach_mul_(tensors, list(masks))


def momenta(optimizers: Iterable[Optimizer], parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return, for each parameter, the optimizers' running averages that have its shape."""
    optimizers = list(optimizers)
    return [
        [
            state
            for optimizer in optimizers
            for state in optimizer.state.get(parameter, {}).values()
            if isinstance(state, Tensor) and state.shape == parameter.shape and state.ndim > 0
        ]
        for parameter in parameters
    ]


def slice_norms(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the L2 norms of the slices of `tensor` along the dimensions on which `like` is longer than 1."""
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
