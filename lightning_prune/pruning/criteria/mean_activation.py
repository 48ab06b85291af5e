"""How strong a channel's activations are."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs


@dataclass(frozen=True)
class MeanActivation(Criterion):
    """Score a channel by the mean of its absolute activations.

    Reference:
        Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017,
        arXiv:1611.06440 (activation).

    >>> import torch
    >>> MeanActivation()(torch.tensor([[1.0, -2.0, 0.0]]))
    tensor([1.])
    """

    needs: ClassVar[Needs] = "activations"

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` means of `(n_units, n_activations)` activations."""
        return units.abs().mean(1)
