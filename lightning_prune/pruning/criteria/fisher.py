"""Optimal brain damage with squared gradients in place of the curvature."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs


@dataclass(frozen=True)
class Fisher(Criterion):
    """Score a unit as `OptimalBrainDamage` does, the diagonal of the Hessian taken from the empirical Fisher matrix.

    The gradients squared are those of mini-batches, not of single samples, which is cheap and noisy. Then the score is
    half of what `Taylor` computes: the two rank alike, but this one forgets the scores before the last choice.

    Reference:
        LeCun et al., Optimal Brain Damage, 1990; Theis et al., Faster gaze prediction with dense networks and Fisher
        pruning, 2018, arXiv:1801.05787 (with the Fisher matrix, of single samples).

    >>> import torch
    >>> Fisher()(torch.tensor([[0.2, -0.15, -0.2]]))
    tensor([0.0513])
    """

    needs: ClassVar[Needs] = "first_order"

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)` products of weight and gradient."""
        return units.square().sum(1) / 2
