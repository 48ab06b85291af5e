"""Weights and inputs of one bit (XNOR-Net)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_prune.arguments import flag
from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.bwn import BinaryWeight, Gradient, check_gradient
from lightning_prune.quantization.quantizers.quantizer import Activation, Layer, Quantizer
from lightning_prune.quantization.quantizers.rounding import sign


@dataclass(frozen=True)
class XNOR(Quantizer):
    """Round weights as BWN does, and inputs to their signs; batch norm belongs in front of them, without ReLU.

    Args:
        scaling_map: Whether outputs are multiplied by the mean magnitude of the input under the filter, before the bias
            is added. The paper has it, the code that its authors released has not.
        gradient: See `lightning_prune.quantization.quantizers.bwn.Gradient`.

    Raises:
        InputError: If `gradient` is none of its options, or `scaling_map` neither True nor False.

    Reference:
        Rastegari et al., XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks, 2016,
        arXiv:1603.05279, section 3.2.
    """

    scaling_map: bool = False
    gradient: Gradient = "exact"

    represents_zero: ClassVar[bool] = False
    whole_filters: ClassVar[bool] = True
    drops_relu: ClassVar[bool] = True

    def __post_init__(self) -> None:
        flag("scaling_map", self.scaling_map)
        check_gradient(self.gradient)

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return a `BinaryWeight` for a weight `(..., n_outputs, ...)`.

        Raises:
            InputError: If the layer is a transposed convolution, and has a scaling map.
        """
        if self.scaling_map and axis != 0:
            raise InputError("expected scaling_map=False, since a layer is a transposed convolution, got True")
        return BinaryWeight(axis, self.gradient)

    def activation(self, signed: bool) -> Activation | None:
        """Return a `Sign`."""
        return Sign()

    def layer(self, weight: nn.Module, input: Activation | None) -> Layer:
        """Return a layer, with a scaling map if it has one."""
        kind = ScaledLayer if self.scaling_map else Layer
        return kind(weight, input, self.represents_zero)


class Sign(Activation):
    """The sign of each number; its gradient passes in [-1, 1].

    An exact zero stays zero: it comes from a channel that was pruned, or from padding.
    """

    def round(self, x: Tensor) -> Tensor:
        """Return 1, -1 and 0, of the same shape as `x`."""
        return sign(x) - (x.detach() == 0).to(x.dtype)


class ScaledLayer(Layer):
    """A convolution or a linear layer whose outputs grow with the magnitude of what it reads, as far as it is rounded.

    That magnitude is taken for a constant.
    """

    def forward(
        self,
        function: Callable[..., Tensor],
        scale: Tensor | None,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Return what `function` computes, `(n, n_outputs, ...)` or `(..., n_outputs)`, scaled; see `Layer`."""
        if self.input is None or not self.input.quantizing:
            return super().forward(function, scale, x, weight, bias, *args, **kwargs)
        out = super().forward(function, scale, x, weight, None, *args, **kwargs)
        with torch.no_grad():
            magnitudes = _magnitudes(function, x, weight, args, kwargs)
        out = out * magnitudes.to(out.dtype)
        return out if bias is None else out + bias.reshape(-1, *[1] * (weight.dim() - 2)).to(out.dtype)


def _magnitudes(
    function: Callable[..., Tensor], x: Tensor, weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Return the mean magnitude of the input under the filter, in a shape that broadcasts over the output.

    The magnitudes are averaged over the channels of a group that are not zero throughout, as pruned ones are, then by a
    filter of equal weights that goes over them as that of the layer does. A linear layer has a filter of one number.
    """
    channels = 1 - weight.dim()  # counted from the end, so that a batch dimension may be missing
    groups = x.shape[channels] // weight.shape[1]
    seen = (x != 0).movedim(channels, 0).reshape(x.shape[channels], -1).any(1)
    alive = torch.unflatten(seen, 0, (groups, -1)).sum(1).clamp_min(1)
    sums = torch.unflatten(x.abs(), channels, (groups, -1)).sum(channels)
    means = sums / alive.reshape(-1, *[1] * (weight.dim() - 2))
    box = torch.full((groups, 1, *weight.shape[2:]), 1 / weight.shape[2:].numel(), dtype=x.dtype, device=x.device)
    return function(means, box, None, *args, **kwargs).repeat_interleave(len(weight) // groups, channels)
