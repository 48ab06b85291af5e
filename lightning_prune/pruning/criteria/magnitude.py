"""The Lp norm of each unit's weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.arguments import number
from lightning_prune.pruning.criteria.criterion import Criterion


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Score a unit by the Lp norm of its weights; small filters are the least important.

    Args:
        p: Order of the norm, greater than 0; `inf` takes the largest absolute weight.

    Raises:
        InputError: If `p` is not a positive number.

    Reference:
        Li et al., Pruning Filters for Efficient ConvNets, 2017, arXiv:1608.08710 (p = 1); He et al., Soft Filter
        Pruning, 2018, arXiv:1808.06866, equation 2 (p = 2).

    >>> Magnitude()(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([5., 1.])
    """

    p: float = 2.0

    def __post_init__(self) -> None:
        number("p", self.p, "(0, inf]")

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` norms of `(n_units, unit_size)` weights."""
        if units.shape[1] == 1:
            return units[:, 0].abs()  # any norm of one number, in a fraction of the time
        norms: Tensor = torch.linalg.vector_norm(units, ord=self.p, dim=1)
        return norms
