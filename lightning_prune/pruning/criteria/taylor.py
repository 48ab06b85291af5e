"""The first-order change of the loss, weight by weight."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs


@dataclass(frozen=True)
class Taylor(Criterion):
    """Score a unit by the squared first-order changes of the loss that each of its weights would cause by going.

    Reference:
        Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, arXiv:1906.10771 (weights, first
        order), with the momentum of 0.9 of its code.

    >>> import torch
    >>> Taylor()(torch.tensor([[0.2, -0.15, -0.2]]))
    tensor([0.1025])
    """

    needs: ClassVar[Needs] = "first_order"
    memory: ClassVar[float] = 0.9

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)` products of weight and gradient."""
        return units.square().sum(1)
