"""How often a channel's activation is not zero (APoZ)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs


@dataclass(frozen=True)
class APoZ(Criterion):
    """Score a channel by the fraction of its activations that are not zero, 1 - APoZ: what never fires goes first.

    Only activation functions that end in exact zeros, such as ReLU, tell channels apart; else see `MeanActivation`.

    Reference:
        Hu et al., Network Trimming, 2016, arXiv:1607.03250.

    >>> import torch
    >>> APoZ()(torch.tensor([[0.0, 0.0, 1.0, 2.0, 0.0, 3.0, 0.0, 0.0]]))
    tensor([0.3750])
    """

    needs: ClassVar[Needs] = "activations"

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` fractions of `(n_units, n_activations)` activations."""
        return units.count_nonzero(1) / units.shape[1]
