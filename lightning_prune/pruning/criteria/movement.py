"""Whether training moves weights away from zero or towards it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs


@dataclass(frozen=True)
class Movement(Criterion):
    """Score a unit by how far the gradients of the whole run push its weights away from zero.

    A large weight that shrinks goes before a small one that grows: meant for fine-tuning, where the weights still
    tell of the earlier task.

    Reference:
        Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, 2020, arXiv:2005.07683.

    >>> import torch
    >>> Movement()(torch.tensor([[0.5, 0.5], [-1.0, 0.0]]))
    tensor([-1.,  1.])
    """

    needs: ClassVar[Needs] = "first_order"
    memory: ClassVar[float] = 1.0

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)` products of weight and gradient."""
        return -units.sum(1)
