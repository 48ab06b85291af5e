"""Weights of one bit with a scale for each filter (BWN)."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_prune.arguments import one_of
from lightning_prune.quantization.quantizers.quantizer import Activation, Quantizer
from lightning_prune.quantization.quantizers.rounding import mean_magnitude, others, sign

Gradient = Literal["exact", "paper", "detach"]
"""What the gradient of a weight takes the scale `alpha` of its filter of `n` weights for.

* `"exact"`: for what it is, the mean magnitude of all weights of the filter.
* `"paper"`: for a function of the weight itself; the gradient is that of its rounded weight times `1 / n + alpha`.
* `"detach"`: for a constant.

A weight beyond [-1, 1] does not get the part with `alpha`.
"""


@dataclass(frozen=True)
class BWN(Quantizer):
    """Round weights to `alpha` and `-alpha`, the mean magnitude of each filter.

    Args:
        gradient: See `Gradient`.

    Raises:
        InputError: If `gradient` is none of its options.

    Reference:
        Rastegari et al., XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks, 2016,
        arXiv:1603.05279, section 3.1.
    """

    gradient: Gradient = "exact"

    represents_zero: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_gradient(self.gradient)

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return a `BinaryWeight` for a weight `(..., n_outputs, ...)`."""
        return BinaryWeight(axis, self.gradient)

    def activation(self, signed: bool) -> Activation | None:
        """Return None: activations stay float."""
        return None


def check_gradient(gradient: Gradient) -> None:
    """Refuse what is no option.

    Raises:
        InputError: If it is none.
    """
    one_of("gradient", gradient, get_args(Gradient))


class BinaryWeight(nn.Module):
    """A weight of which only the signs are left, and the mean magnitude of each filter; zero counts as positive.

    A filter of zeros has the mean magnitude of the layer, so that it gets a gradient.

    Args:
        axis: The dimension of filters.
        gradient: See `Gradient`.
    """

    def __init__(self, axis: int, gradient: Gradient) -> None:
        super().__init__()
        self.axis = axis
        self.gradient = gradient

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, `(..., n_outputs, ...)`, rounded."""
        alpha = mean_magnitude(weight, self.axis)
        alpha = torch.where(alpha > 0, alpha, mean_magnitude(weight.detach(), None))
        if self.gradient == "exact":
            return alpha * sign(weight)
        rounded = alpha.detach() * sign(weight)
        if self.gradient == "paper":
            kept = (weight != 0).sum(others(weight, self.axis), keepdim=True).clamp_min(1)
            rounded = rounded + (weight - weight.detach()) / kept
        return rounded
