"""Codes of few bits with a scale and a zero-point, as integer hardware computes with them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lightning_prune.arguments import flag, number
from lightning_prune.quantization.quantizers.quantizer import FLOAT, Activation, Quantizer, check_bits, with_bits
from lightning_prune.quantization.quantizers.rounding import SMALLEST_STEP, fake_quantize, others, straight_through


@dataclass(frozen=True)
class Affine(Quantizer):
    """Train for a network that runs in integers: `x = scale * (code - zero_point)`.

    Weights are symmetric without their lowest code, -127 to 127 for 8 bits, and their largest magnitude is the largest
    code. Activations have codes from 0 and a range that follows a moving average of what each batch holds.

    Args:
        weight_bits: 2 to 8, or 32 for float.
        activation_bits: 2 to 8, or 32 for float.
        per_channel: Whether each output channel of a weight has a scale of its own; if not, the layer has one, and the
            batch norm behind it is folded in before the weight is rounded.
        averaging: Share of the last batch in the ranges of activations, in (0, 1].

    Raises:
        InputError: If a number is out of its range, or `per_channel` neither True nor False.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2018, arXiv:1712.05877, section 3; Krishnamoorthi, Quantizing Deep Convolutional Networks for Efficient
        Inference, 2018, arXiv:1806.08342 (per channel).
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    averaging: float = 0.01

    integer: ClassVar[bool] = True
    edge_bits: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("activation_bits", self.activation_bits)
        flag("per_channel", self.per_channel)
        number("averaging", self.averaging, "(0, 1]")

    @property
    def folds(self) -> bool:
        """Whether one scale for the layer has to fit all its folded channels; with one each, it scales along."""
        return not self.per_channel

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return an `AffineWeight` for a weight `(..., n_outputs, ...)`, or what changes nothing."""
        if self.weight_bits == FLOAT:
            return nn.Identity()
        return AffineWeight(self.weight_bits, axis if self.per_channel else None)

    def activation(self, signed: bool) -> Activation | None:
        """Return an `AffineActivation`, None for float."""
        return None if self.activation_bits == FLOAT else AffineActivation(self.activation_bits, signed, self.averaging)

    def of_bits(self, bits: int) -> Quantizer | None:
        """Return the same method with other bits, None for float."""
        return with_bits(self, bits)


class AffineWeight(nn.Module):
    """A weight on `2^bits - 1` levels around zero; its gradient passes unchanged, since none is out of range.

    Args:
        bits: Of its codes.
        axis: The dimension that has a scale for each of its entries; None for one scale.
    """

    def __init__(self, bits: int, axis: int | None) -> None:
        super().__init__()
        self.most = 2 ** (bits - 1) - 1
        self.axis = axis

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, `(..., n_outputs, ...)`, rounded: codes times scale."""
        scale = self._scale(weight.detach())
        return straight_through((weight.detach() / scale).round_().mul_(scale), weight)

    @torch.no_grad()
    def codes(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the int8 codes of a weight, and the float32 scale, `()` or one for each entry of `axis`.

        Their product is what `forward` returns, to the last bit.
        """
        weight = weight.float()
        scale = self._scale(weight)
        codes = (weight / scale).round_().to(torch.int8)
        return codes, scale.reshape(() if self.axis is None else (-1,))

    def _scale(self, weight: Tensor) -> Tensor:
        """Return the distance of two levels, in a shape that broadcasts."""
        greatest = weight.abs().amax(others(weight, self.axis), keepdim=True)
        return greatest.div(self.most).clamp_min(SMALLEST_STEP)


class AffineActivation(Activation):
    """A tensor on `2^bits` levels, one of which is zero.

    Args:
        bits: Of its codes, which begin at 0.
        signed: Whether numbers can be negative; if not, the range begins at zero, so that the code of zero is 0.
        averaging: See `Affine`.
    """

    low: Tensor
    """`()`: where the range begins; +inf as long as nothing was observed."""
    high: Tensor
    """`()`: where it ends; -inf as long as nothing was observed."""

    def __init__(self, bits: int, signed: bool, averaging: float) -> None:
        super().__init__()
        self.most: int = 2**bits - 1
        self.signed = signed
        self.averaging = averaging
        """Share of the next batch in the range; 1 / k for the k-th makes it the mean of all."""
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Move the range to that of a batch, `(n, ...)`, all the way for the first; unless it has inf or NaN."""
        if x.numel() == 0:
            return
        least, most = torch.aminmax(x) if self.signed else (x.new_zeros(()), x.amax())
        finite = least.isfinite() & most.isfinite()
        for bound, seen in ((self.low, least), (self.high, most)):
            moved = torch.where(bound.isinf(), seen, torch.lerp(bound, seen.to(bound.dtype), self.averaging))
            bound.copy_(torch.where(finite, moved, bound))

    def grid(self) -> tuple[Tensor, Tensor, int, int]:
        """Return the scale and the zero-point, both `()`, float32 and int32, the lowest and the highest code.

        The range is widened to hold zero, and moved by less than a level, so that zero is exactly a level.
        """
        low, high = self.low.float().clamp_max(0.0), self.high.float().clamp_min(0.0)
        scale = ((high - low) / self.most).clamp_min(SMALLEST_STEP)
        zero_point = (-low / scale).round().clamp(0, self.most).to(torch.int32)
        return scale, zero_point, 0, self.most

    def round(self, x: Tensor) -> Tensor:
        """Return `x`, of any shape, on the grid; its gradient passes inside the range."""
        rounded: Tensor = fake_quantize(x, *self.grid())
        return rounded

    def limit(self) -> Tensor | None:
        """Return the largest magnitude of the range, `()`, to which the grid fits up to half a level."""
        return torch.maximum(self.low.abs(), self.high.abs())
