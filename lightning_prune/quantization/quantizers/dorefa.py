"""Weights, activations and gradients of few bits (DoReFa)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.quantizer import FLOAT, Activation, Layer, Quantizer, check_bits, with_bits
from lightning_prune.quantization.quantizers.rounding import (
    SMALLEST_STEP,
    inside,
    mean_magnitude,
    sign,
    straight_through,
)


@dataclass(frozen=True)
class DoReFa(Quantizer):
    """Round weights between -1 and 1, activations between 0 and 1, and gradients as they come.

    Batch norm belongs in front of the activations. Inputs of both signs, which the paper has not, are cut off at -1 and
    1, with `2^(activation_bits - 1) - 1` levels on each side of zero.

    Args:
        weight_bits: 1 to 8, or 32 for float; with 1 bit, weights are the mean magnitude of the layer and its negative.
        activation_bits: 1 to 8, or 32 for float.
        gradient_bits: 2 to 8, or 32 for float: of the gradient of each layer's output.

    Raises:
        InputError: If a number of bits is none of these.

    Reference:
        Zhou et al., DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth Gradients, 2016,
        arXiv:1606.06160.
    """

    weight_bits: int = 1
    activation_bits: int = 2
    gradient_bits: int = FLOAT

    represents_zero: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits, least=1)
        check_bits("activation_bits", self.activation_bits, least=1)
        check_bits("gradient_bits", self.gradient_bits)

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return what rounds a weight of any shape, whatever it is at the beginning."""
        return dorefa_weight(self.weight_bits)

    def activation(self, signed: bool) -> Activation | None:
        """Return a `DoReFaActivation`, None for float.

        Raises:
            InputError: If one bit is to hold both signs, and zero.
        """
        if signed and self.activation_bits == 1:
            raise InputError("expected activation_bits from 2 on, since a layer reads numbers of both signs, got 1")
        return None if self.activation_bits == FLOAT else DoReFaActivation(self.activation_bits, signed)

    def layer(self, weight: nn.Module, input: Activation | None) -> Layer:
        """Return a layer, with rounded gradients if they are."""
        if self.gradient_bits == FLOAT:
            return super().layer(weight, input)
        return GradientLayer(weight, input, self.represents_zero, self.gradient_bits)

    def of_bits(self, bits: int) -> Quantizer | None:
        """Return the same method with other bits for weights and activations, None for float."""
        return with_bits(self, bits)


def dorefa_weight(bits: int) -> nn.Module:
    """Return what rounds a weight to `bits`."""
    if bits == FLOAT:
        return nn.Identity()
    return DoReFaBinaryWeight() if bits == 1 else DoReFaWeight(bits)


class DoReFaBinaryWeight(nn.Module):
    """The mean magnitude of a layer's weights, with the sign of each; its gradient passes unchanged."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, of any shape, rounded."""
        return straight_through(sign(weight.detach()) * mean_magnitude(weight.detach(), None), weight)


class DoReFaWeight(nn.Module):
    """The hyperbolic tangent of a weight, on `2^bits` levels from -1 to 1 of which none is zero.

    The gradient is that of the tangent; the rounding passes it unchanged.

    Args:
        bits: Of its levels.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.most: int = 2**bits - 1

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, of any shape, rounded."""
        bounded = weight.tanh()
        greatest = bounded.detach().abs().amax().clamp_min(SMALLEST_STEP)
        bounded = bounded / greatest
        levels = (bounded.detach() / 2 + 0.5).mul_(self.most).round_()
        return straight_through(2 * levels / self.most - 1, bounded)


class DoReFaActivation(Activation):
    """A layer's input between 0 and 1, or -1 and 1, with equal distances between its levels.

    Args:
        bits: Of its levels.
        signed: Whether it can be negative.
    """

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__()
        self.high: int = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.low = -self.high if signed else 0

    def round(self, x: Tensor) -> Tensor:
        """Return `x`, of any shape, on the grid; its gradient passes between the outermost levels."""
        return _Bounded.apply(x, self.low, self.high)  # type: ignore[no-any-return, no-untyped-call]


class _Bounded(Function):
    """Levels `low / high` to 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low / high, 1.0
        return x.mul(high).round_().clamp_(low, high).div_(high)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return inside(grad, *ctx.saved_tensors, *ctx.bounds), None, None


class GradientLayer(Layer):
    """A layer that rounds the gradient of its output before it uses it.

    Args:
        weight: See `Layer`.
        input: See `Layer`.
        represents_zero: See `Layer`.
        bits: Of the gradient.
    """

    def __init__(self, weight: nn.Module, input: Activation | None, represents_zero: bool, bits: int) -> None:
        super().__init__(weight, input, represents_zero)
        self.bits = bits

    def forward(
        self,
        function: Callable[..., Tensor],
        scale: Tensor | None,
        x: Tensor,
        weight: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Return what `function` computes, `(n, ...)`, the gradient of which is rounded; see `Layer`."""
        out = super().forward(function, scale, x, weight, *args, **kwargs)
        return _RoundGradient.apply(out, self.bits)  # type: ignore[no-any-return, no-untyped-call]


class _RoundGradient(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bits: int) -> Tensor:
        ctx.bits = bits
        return x.clone()  # a view could not be changed in place by what follows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        noise = torch.rand_like(grad, dtype=torch.float32) - 0.5
        return round_gradient(grad.float(), ctx.bits, noise).to(grad.dtype), None


def round_gradient(grad: Tensor, bits: int, noise: Tensor) -> Tensor:
    """Return a gradient on `2^bits` levels from the negative of its greatest magnitude to that, sample by sample.

    Args:
        grad: `(n, ...)`.
        bits: Of the levels.
        noise: Of the shape of `grad`, uniform in [-0.5, 0.5), in levels: it makes the rounding right on average.

    Reference:
        Zhou et al., 2016, arXiv:1606.06160, equation 12.
    """
    most = 2**bits - 1
    span = 2 * grad.abs().amax(tuple(range(1, grad.dim())), keepdim=True)
    shares = grad / span.clamp_min(torch.finfo(grad.dtype).tiny)
    levels = shares.add_(0.5).mul_(most).add_(noise).round_().clamp_(0, most)
    return levels.div_(most).sub_(0.5).mul_(span)
