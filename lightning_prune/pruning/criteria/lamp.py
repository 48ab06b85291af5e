"""Magnitudes that can be compared between layers (LAMP)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion


@dataclass(frozen=True)
class LAMP(Criterion):
    """Score a unit by its squared L2 norm over the sum of those of the units at least as large.

    Inside a layer this ranks as the norm does; between layers the largest unit of each scores 1, so in global scope
    none is emptied. Of equal units the later one counts as the larger.

    Reference:
        Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, 2021, arXiv:2010.07611.

    >>> LAMP()(torch.tensor([[2.0], [1.0], [0.0], [1.0]]))
    tensor([1.0000, 0.1667, 0.0000, 0.2000])
    """

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores in [0, 1] of `(n_units, unit_size)` weights."""
        norms, order = torch.linalg.vector_norm(units, dim=1).sort(stable=True)
        # On the CPU, as float64 sums in an order that never changes; GPUs promise neither.
        squares = norms.cpu().double().square()
        # Summed from the largest down, so that nothing is lost by subtraction.
        larger = squares.flip(0).cumsum(0).flip(0)
        scores = torch.where(squares > 0, squares / larger, 0).float().to(units.device)
        return torch.empty_like(scores).scatter_(0, order, scores)
