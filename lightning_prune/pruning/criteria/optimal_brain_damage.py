"""The second-order change of the loss (OBD)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs


@dataclass(frozen=True)
class OptimalBrainDamage(Criterion):
    """Score a unit by half the curvature along each of its weights times the weight squared.

    It is the rise of the loss if the training has converged and weights do not interact. Where the loss curves
    downward a score is negative: the unit goes first. `Fisher` is the cheaper form, which never is.

    Reference:
        LeCun et al., Optimal Brain Damage, 1990.

    >>> import torch
    >>> weights, diagonal = torch.tensor([0.5, 0.8, 2.0]), torch.tensor([4.0, 1.0, 0.25])
    >>> OptimalBrainDamage()((weights * diagonal * weights).unsqueeze(1))
    tensor([0.5000, 0.3200, 0.5000])
    """

    needs: ClassVar[Needs] = "second_order"

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)` products weight, diagonal of the Hessian, weight."""
        return units.sum(1) / 2
