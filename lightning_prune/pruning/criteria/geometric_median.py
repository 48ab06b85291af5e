"""The distance of each unit to all others (FPGM)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion

PAIRS = 2**24
"""Distances that are held at a time."""


@dataclass(frozen=True)
class GeometricMedian(Criterion):
    """Score a unit by the sum of its Euclidean distances to all units of its group.

    The units with the smallest sum lie nearest to the geometric median of the group: the others can replace them.

    Reference:
        He et al., Filter Pruning via Geometric Median, 2019, arXiv:1811.00250, equation 8.

    >>> GeometricMedian()(torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]]))
    tensor([30., 27., 25., 28., 70.])
    """

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` sums of distances between `(n_units, unit_size)` weights."""
        if units.shape[1] == 1:
            return _on_a_line(units[:, 0])
        rows = max(1, PAIRS // max(1, len(units)))
        # The exact form, not the one by inner products, which rounds the distances of near duplicates.
        parts = [
            torch.cdist(part, units, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
            for part in torch.split(units, rows)
        ]
        return torch.cat(parts)


def _on_a_line(values: Tensor) -> Tensor:
    """Return the sums of distances between single numbers, for which a sort is enough."""
    ordered, order = values.double().sort()
    ranks = torch.arange(len(values), dtype=torch.float64, device=values.device)
    below = ordered.cumsum(0) - ordered
    above = ordered.sum() - ordered - below
    sums = ordered * ranks - below + above - ordered * (len(values) - 1 - ranks)
    return torch.empty_like(values).index_copy_(0, order, sums.to(values))
