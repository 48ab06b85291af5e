"""The scale of the batch norm behind a channel (network slimming)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Criterion, Part


@dataclass(frozen=True)
class BatchNormScale(Criterion):
    """Score a channel by the absolute scale that batch norm gives it; the mean, where several norms follow.

    Reference:
        Liu et al., Learning Efficient Convolutional Networks through Network Slimming, 2017, arXiv:1708.06519.

    >>> import torch
    >>> BatchNormScale()(torch.tensor([[-0.5], [0.1]]))
    tensor([0.5000, 0.1000])
    """

    reads: ClassVar[tuple[tuple[Part, ...], ...]] = (("scale",),)

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` means of `(n_units, n_norms)` absolute scales."""
        return units.abs().mean(1)
