"""From scores to masks, with exact counts, and from masks to weights that stay at zero."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.lowest import lowest

BLOCK = 2**18
"""Scores changed together: few enough to stay in a processor's cache."""

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


def nearest(widths: Sequence[int] | None, kept: int, least: int = 1) -> int:
    """Return how many units stay where `kept` were to: of the numbers that may, the nearest, of two the larger.

    Args:
        widths: How many may stay, ascending, up to all; None if any number may.
        kept: Number of units.
        least: Number of units that stay at least, no more than there are.

    >>> [nearest([8, 16, 20], kept) for kept in (1, 11, 12, 17, 18)]
    [8, 8, 16, 16, 20]
    """
    if widths is None:
        return max(kept, least)
    return min((width for width in widths if width >= least), key=lambda width: (abs(width - kept), -width))


def prune(
    units: Tensor,
    criterion: Criterion | Mix,
    sparsity: float,
    rounding: Rounding = "round",
    gone: Tensor | None = None,
    widths: Sequence[int] | None = None,
) -> Tensor:
    """Return which units go, looking at their weights alone.

    Args:
        units: `(n_units, unit_size)` weights.
        criterion: What scores them.
        sparsity: Fraction of units that go, in [0, 1).
        rounding: How their number is rounded; see `count`.
        gone: `(n_units,)` bool, units that go in any case and count; None if there are none.
        widths: How many units may stay; see `nearest`.

    Returns:
        `(n_units,)` bool, True = pruned.
    """
    size = len(units)
    gone = torch.zeros(size, dtype=torch.bool, device=units.device) if gone is None else gone
    if not isinstance(criterion, Mix):
        number = size - nearest(widths, size - count(size, sparsity, rounding))
        return _least_important(units, criterion, number, gone)
    first, second = (count(size, share * sparsity, rounding) for share in (criterion.share, 1 - criterion.share))
    number = size - nearest(widths, size - first - second)
    pruned = _least_important(units, criterion.first, min(first, number), gone)
    rest = (~pruned).nonzero().reshape(-1)
    pruned[rest] = _least_important(units[rest], criterion.then, number - size + len(rest), gone[rest])
    return pruned


def _least_important(units: Tensor, criterion: Criterion, number: int, gone: Tensor) -> Tensor:
    """Return `(n_units,)` bool: the units that are gone and those with the lowest scores, `number` of them in all."""
    return lowest([criterion(units).masked_fill(gone, -math.inf)], number)[0]


def put_first(scores: Tensor, kept: Tensor) -> None:
    """Set, in place, the scores of units that are gone to `-inf`.

    Args:
        scores: `(n_units,)`, finite.
        kept: `(n_units,)`, 1 = kept, 0 = gone, of any number format.
    """
    # A sum takes half the time of `masked_fill_`, and blocks take no new memory. Twice the largest number is infinite.
    largest = torch.finfo(scores.dtype).max
    for own, stays in zip(torch.split(scores, BLOCK), torch.split(kept, BLOCK), strict=True):
        lack = stays.to(own.dtype) - 1
        own.add_(lack, alpha=largest).add_(lack, alpha=largest)


def prune_each(
    scores: Sequence[Tensor],
    sparsities: Sequence[float],
    removable: Sequence[Tensor | None],
    runs: Sequence[int],
) -> list[Tensor]:
    """Return which units go when each layer loses its own share.

    Args:
        scores: `(n_units,)` for each layer; the lowest go first.
        sparsities: Fraction of units that each layer loses, in [0, 1).
        removable: `(n_units,)` bool for each layer, the units that may go; None where all may.
        runs: Number of runs of consecutive units in each layer that all lose the same fraction.

    Returns:
        `(n_units,)` bool for each layer, True = pruned.
    """
    result = []
    for layer, sparsity, free, parts in zip(scores, sparsities, removable, runs, strict=True):
        number = count(len(layer) // parts, sparsity)
        if free is not None:
            layer, number = layer.masked_fill(~free, math.inf), min(number, int(free.count_nonzero()))
        if parts == 1:
            result += lowest([layer], number)
        else:
            order = layer.view(parts, -1).argsort(dim=1, stable=True)[:, :number]
            pruned = torch.zeros_like(layer, dtype=torch.bool).view(parts, -1)
            result.append(pruned.scatter_(1, order, True).view(-1))
    return result


def kept_at_least(size: int, floor: float) -> int:
    """Return how many of `size` units stay at least, at least one, when a fraction `floor` does."""
    return max(1, math.ceil(floor * size - 1e-9))


def least(sizes: Sequence[int], free: Sequence[int], sparsity: float, floor: float) -> list[int]:
    """Return how many of its units each layer keeps at least.

    Args:
        sizes: Number of units of each layer.
        free: Number of units that may go in each layer.
        sparsity: Fraction of all units that go, in [0, 1), as far as they may.
        floor: Fraction of its units that every layer keeps, in [0, 1), at least one.

    Raises:
        InputError: If that is more than the sparsity leaves.
    """
    kept = [kept_at_least(size, floor) for size in sizes]
    room = sum(min(may_go, size - stay) for may_go, size, stay in zip(free, sizes, kept, strict=True))
    if min(count(sum(sizes), sparsity), sum(free)) > room:
        raise InputError(
            f"expected sparsity of at most {room / sum(sizes):.4f}, so that every layer keeps a fraction "
            f"floor={floor} of its units, got {sparsity:.4f}; lower the sparsity or the floor"
        )
    return kept


def prune_together(
    scores: Sequence[Tensor], sparsity: float, removable: Sequence[Tensor | None], floor: float
) -> list[Tensor]:
    """Return which units go when the units of all layers compete with each other.

    Args:
        scores: `(n_units,)` for each layer; the lowest of all go first.
        sparsity: Fraction of all units that go, in [0, 1).
        removable: `(n_units,)` bool for each layer, the units that may go; None where all may.
        floor: Fraction of its units that every layer keeps, in [0, 1), at least one.

    Returns:
        `(n_units,)` bool for each layer, True = pruned.

    Raises:
        InputError: If the layers would have to keep more than the sparsity leaves.
    """
    layers = [
        layer if may_go is None else layer.masked_fill(~may_go, math.inf)
        for layer, may_go in zip(scores, removable, strict=True)
    ]
    sizes = [len(layer) for layer in layers]
    free = [
        size if may_go is None else int(may_go.count_nonzero()) for size, may_go in zip(sizes, removable, strict=True)
    ]
    smallest = least(sizes, free, sparsity, floor)
    number = min(count(sum(sizes), sparsity), sum(free))
    while True:
        pruned = lowest(layers, number)
        short = [i for i, gone in enumerate(pruned) if len(gone) - int(gone.count_nonzero()) < smallest[i]]
        if not short:
            return pruned
        for i in short:
            safe = ~lowest([layers[i]], len(layers[i]) - smallest[i])[0]
            layers[i] = layers[i].masked_fill(safe, math.inf)


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
