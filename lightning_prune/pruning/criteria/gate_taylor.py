"""The first-order change of the loss when a channel is shut as a whole."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Needs, Part


@dataclass(frozen=True)
class GateTaylor(Criterion):
    """Score a channel by the squared gradient of a gate of value 1 behind its batch norm.

    The gate multiplies scale and shift alike, so its gradient is `scale * dL/dscale + shift * dL/dshift` and no gate
    has to be put into the model. Without a norm, filter and bias take the place of scale and shift.

    Reference:
        Molchanov et al., Importance Estimation for Neural Network Pruning, 2019, arXiv:1906.10771 (gates), with the
        momentum of 0.9 of its code.

    >>> import torch
    >>> GateTaylor()(torch.tensor([[0.2, -0.15, -0.2]]))
    tensor([0.0225])
    """

    needs: ClassVar[Needs] = "first_order"
    reads: ClassVar[tuple[tuple[Part, ...], ...]] = (("scale", "shift"), ("filter", "bias"))
    memory: ClassVar[float] = 0.9

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)` products of weight and gradient."""
        return units.sum(1).square()
