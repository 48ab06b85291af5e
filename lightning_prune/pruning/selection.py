"""Which units go, given their scores and how many of them are to: exact numbers, stable order."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.pruning.counts import check_floor, count, kept_at_least
from lightning_prune.pruning.lowest import lowest

CACHE_BLOCK = 2**18
"""Scores changed together: few enough to stay in a processor's cache."""


def put_first(scores: Tensor, kept: Tensor) -> None:
    """Set, in place, the scores of units that are gone to `-inf`.

    Args:
        scores: `(n_units,)`, finite or `-inf`.
        kept: `(n_units,)`, 1 = kept, 0 = gone, of any number format.
    """
    # A sum takes half the time of `masked_fill_`, and blocks take no new memory. Twice the largest number is infinite.
    largest = torch.finfo(scores.dtype).max
    for own, stays in zip(torch.split(scores, CACHE_BLOCK), torch.split(kept, CACHE_BLOCK), strict=True):
        lack = stays.to(own.dtype) - 1
        own.add_(lack, alpha=largest).add_(lack, alpha=largest)


def select_alone(scores: Tensor, number: int, removable: Tensor | None = None, runs: int = 1) -> Tensor:
    """Return which units of one layer go, `(n_units,)` bool, True = pruned.

    Args:
        scores: `(n_units,)`; the lowest go first.
        number: How many of each run go, if so many may.
        removable: `(n_units,)` bool, the units that may go; None where all may.
        runs: Number of runs of consecutive units that all lose as many.
    """
    if removable is not None:
        scores, number = scores.masked_fill(~removable, math.inf), min(number, int(removable.count_nonzero()))
    if runs == 1:
        return lowest([scores], number)[0]
    order = scores.view(runs, -1).argsort(dim=1, stable=True)[:, :number]
    pruned = torch.zeros_like(scores, dtype=torch.bool).view(runs, -1)
    return pruned.scatter_(1, order, True).view(-1)


def select_together(
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
    check_floor(sizes, free, sparsity, floor)
    least = [kept_at_least(size, floor) for size in sizes]
    number = min(count(sum(sizes), sparsity), sum(free))
    while True:
        pruned = lowest(layers, number)
        short = [i for i, gone in enumerate(pruned) if len(gone) - int(gone.count_nonzero()) < least[i]]
        if not short:
            return pruned
        for i in short:
            safe = ~lowest([layers[i]], len(layers[i]) - least[i])[0]
            layers[i] = layers[i].masked_fill(safe, math.inf)
