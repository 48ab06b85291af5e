"""Weights of three values, two of which are learned (TTQ)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_prune.arguments import number
from lightning_prune.quantization.quantizers.quantizer import Activation, Quantizer
from lightning_prune.quantization.quantizers.rounding import SMALLEST_STEP, mean_magnitude


@dataclass(frozen=True)
class TTQ(Quantizer):
    """Round the weights of a layer to `positive`, 0 and `-negative`, which are learned.

    They are learned in units of the greatest weight that the layer begins with, since the paper's weights are
    normalized to [-1, 1]: in the weights' own units their gradients would be large against them, and training falls
    apart. They begin as the mean magnitudes of the weights that they stand for, so that a trained network goes on from
    where it is; the paper's code begins with 1.

    Args:
        threshold: Which weights are rounded to 0, as a multiple of the greatest magnitude, in (0, 1).

    Raises:
        InputError: If `threshold` is out of its range.

    Reference:
        Zhu et al., Trained Ternary Quantization, 2017, arXiv:1612.01064, equations 6 to 9.
    """

    threshold: float = 0.05

    def __post_init__(self) -> None:
        number("threshold, a multiple of the greatest weight,", self.threshold, "(0, 1)")

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return a `TrainedTernaryWeight` for a weight of any shape."""
        return TrainedTernaryWeight(self.threshold, weight)

    def activation(self, signed: bool) -> Activation | None:
        """Return None: activations stay float."""
        return None


class TrainedTernaryWeight(nn.Module):
    """A weight of three values.

    The gradient of a value is the sum of those of its weights, that of a weight is multiplied by the value that it is
    rounded to, without its sign, and passes unchanged where that is 0. All this is in units of `unit`.

    Args:
        threshold: See `TTQ`.
        weight: From which the values are set.
    """

    unit: Tensor
    """`()`: the greatest magnitude at the beginning."""

    def __init__(self, threshold: float, weight: Tensor) -> None:
        super().__init__()
        self.threshold = threshold
        weight = weight.detach().float()
        self.register_buffer("unit", weight.abs().amax().clamp_min(SMALLEST_STEP))
        self.positive = nn.Parameter(self._mean(weight, self._above(weight)) / self.unit)
        self.negative = nn.Parameter(self._mean(weight, self._above(-weight)) / self.unit)

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, of any shape, rounded."""
        detached = weight.detach()
        above, below = self._above(detached), self._above(-detached)
        rounded = self.unit * torch.where(above, self.positive, torch.where(below, -self.negative, 0.0 * detached))
        factor = torch.where(above, self.positive, torch.where(below, self.negative, 1.0)).detach()
        return rounded + factor * (weight - detached)

    def _above(self, weight: Tensor) -> Tensor:
        """Return where a weight is rounded to its positive value."""
        return weight > self.threshold * weight.abs().amax()

    @staticmethod
    def _mean(weight: Tensor, chosen: Tensor) -> Tensor:
        """Return `()`: the mean magnitude where `chosen`, and of all weights if there are none."""
        of = torch.where(chosen.any(), torch.where(chosen, weight, 0.0), weight)
        return mean_magnitude(of, None).reshape(()).clamp_min(SMALLEST_STEP)
