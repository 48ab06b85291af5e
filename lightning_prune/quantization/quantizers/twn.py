"""Weights of three values (TWN)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_prune.arguments import flag, number
from lightning_prune.quantization.quantizers.quantizer import Activation, Quantizer
from lightning_prune.quantization.quantizers.rounding import mean_magnitude, straight_through


@dataclass(frozen=True)
class TWN(Quantizer):
    """Round weights to `alpha`, 0 and `-alpha`: small ones to 0, and `alpha` is the mean magnitude of the others.

    Args:
        threshold: Which are small, as a multiple of the mean magnitude, in (0, 1).
        per_channel: Whether each filter has an `alpha` of its own; if not, the layer has one.

    Raises:
        InputError: If `threshold` is out of its range, or `per_channel` neither True nor False.

    Reference:
        Li et al., Ternary Weight Networks, 2016, arXiv:1605.04711, equations 3 to 6.
    """

    threshold: float = 0.7
    per_channel: bool = False

    def __post_init__(self) -> None:
        number("threshold, a multiple of the mean magnitude,", self.threshold, "(0, 1)")
        flag("per_channel", self.per_channel)

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return a `TernaryWeight` for a weight `(..., n_outputs, ...)`."""
        return TernaryWeight(self.threshold, axis if self.per_channel else None)

    def activation(self, signed: bool) -> Activation | None:
        """Return None: activations stay float."""
        return None


class TernaryWeight(nn.Module):
    """A weight of three values; its gradient passes unchanged.

    Args:
        threshold: See `TWN`.
        axis: The dimension of which each entry has an `alpha`; None for one of them all.
    """

    def __init__(self, threshold: float, axis: int | None) -> None:
        super().__init__()
        self.threshold = threshold
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, `(..., n_outputs, ...)`, rounded."""
        detached = weight.detach()
        small = detached.abs() <= self.threshold * mean_magnitude(detached, self.axis)
        alpha = mean_magnitude(torch.where(small, 0.0, detached), self.axis)
        return straight_through(torch.where(small, 0.0, detached.sign() * alpha), weight)
