"""Layers whose weights and biases are stored as integers, for files that run in integers."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.rounding import fake_quantize

SMALLEST_SCALE = 1e-12
"""Least step of a weight: its product with the step of an input is still a normal float."""

LARGEST_BIAS = 2**30
"""Largest code of a bias: half of what an int32 holds, the other half is for the products that are added to it."""


@torch.library.custom_op("lightning_prune::dequantize", mutates_args=())
def dequantize_codes(codes: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return `codes * scale` as float32, of the shape of `codes`.

    Args:
        codes: int8 or int32, of any shape.
        scale: `(codes.shape[axis],)` float32.
        axis: The dimension along which the scale differs.
    """
    return scaled(codes, scale, axis)


def scaled(codes: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Return what `dequantize_codes` does, of the same shape as `codes`, in operators of torch alone."""
    return codes.float() * scale.view(_along(codes, axis))


@dequantize_codes.register_fake
def _(codes: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(codes, dtype=torch.float32)


class FrozenNorm(NamedTuple):
    """A batch norm in eval mode: each channel of its input times `scale`, `(O,)`, plus `shift`, `(O,)`; float64."""

    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float) -> "FrozenNorm":
        """Return it from the parameters and the running statistics of a batch norm, `(O,)` each.

        Reference:
            Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
            Inference", 2018, arXiv 1712.05877, equation 14.
        """
        scale = (_precise(variance) + eps).rsqrt()
        scale = scale if weight is None else scale * _precise(weight)
        shift = -_precise(mean) * scale
        return cls(scale, shift if bias is None else shift + _precise(bias))


class IntegerWeights(NamedTuple):
    """A layer's weight and bias as integers.

    Attributes:
        codes: int8, of the shape of the weight.
        scale: `(O,)`, the step of each output channel.
        axis: The weight's dimension of output channels.
        bias_codes: `(O,)` int32, or None for no bias.
        bias_scale: `(O,)`, the bias's step: the input's times the weight's, so that products and bias add as integers.
    """

    codes: Tensor
    scale: Tensor
    axis: int
    bias_codes: Tensor | None
    bias_scale: Tensor

    def numbers(self) -> tuple[Tensor, Tensor | None]:
        """Return the weight and the bias that they stand for, of the same shapes as their codes."""
        bias = None if self.bias_codes is None else dequantize_codes(self.bias_codes, self.bias_scale, 0)
        return dequantize_codes(self.codes, self.scale, self.axis), bias


class IntegerLayer(nn.Module):
    """Compute a convolution or a linear layer with a weight and a bias that are held as integers.

    Args:
        integers: The weight and the bias.
        input: Rounds what the layer reads; None if that comes rounded.

    Raises:
        InputError: If the numbers that they stand for are not finite.
    """

    codes: Tensor
    scale: Tensor
    bias_codes: Tensor | None
    bias_scale: Tensor
    folds: ClassVar[bool] = False
    """No batch norm has to be folded into it any more."""

    def __init__(self, integers: IntegerWeights, input: nn.Module | None = None) -> None:
        super().__init__()
        if not all(bool(scale.isfinite().all()) for scale in (integers.scale, integers.bias_scale)):
            raise InputError(
                "expected finite weights, biases, batch norm statistics and ranges of activations, got NaN or "
                "infinity: the training has diverged; export an earlier checkpoint"
            )
        self.axis = integers.axis
        self.input = input
        self.register_buffer("codes", integers.codes)
        self.register_buffer("scale", integers.scale)
        self.register_buffer("bias_codes", integers.bias_codes)
        self.register_buffer("bias_scale", integers.bias_scale)

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
        """Return `function` of `x`, of any shape that it takes, the held weight and bias, `args` and `kwargs`.

        `scale`, `weight` and `bias` are what a `Layer` is called with in its place; they are not used.
        """
        held = IntegerWeights(self.codes, self.scale, self.axis, self.bias_codes, self.bias_scale)
        return function(x if self.input is None else self.input(x), *held.numbers(), *args, **kwargs)


class FrozenActivation(nn.Module):
    """Round a tensor between layers to a grid that no longer changes.

    Args:
        scale: The step, no dimensions.
        zero_point: The code of zero, no dimensions.
        low: Smallest code, 0 or more.
        high: Largest code, 255 or less.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.register_buffer("scale", scale.detach().float().reshape(()).clone())
        self.register_buffer("zero_point", zero_point.detach().reshape(()).to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, of any shape, on the grid."""
        rounded: Tensor = fake_quantize(x, self.scale, self.zero_point, self.low, self.high)
        return rounded


def as_integers(
    codes: Tensor,
    scale: Tensor,
    axis: int,
    input_scale: Tensor,
    bias: Tensor | None = None,
    norm: FrozenNorm | None = None,
    folded: Tensor | None = None,
) -> IntegerWeights:
    """Return the integers with which a layer computes what its rounded weight and its batch norm compute in floats.

    What the batch norm multiplies by goes into the scales, its sign into the codes, so that the weights are those of
    training. A bias that is no int32 in steps of the input times the weight gets a larger step, and the channel's codes
    are rounded to it. So it is with a channel that the batch norm multiplies by zero: its codes become zero, and its
    step the one in which the shift fits. In any other channel that takes a bias of 2^30 steps, beside which the
    weights hardly show: what is lost of them moves the output by at most its fan-in times 1.2e-7 of the bias.

    Args:
        codes: Integers in [-128, 127], of the shape of the weight.
        scale: `(O,)` or a single one: `codes * scale` is the rounded weight.
        axis: The weight's dimension of output channels.
        input_scale: Step of the layer's input, a single one.
        bias: `(O,)`, the layer's own, or None.
        norm: The batch norm behind it, which then is to be left out, or None.
        folded: `(O,)`, no entry zero, by which the weight was multiplied before it was rounded; None for 1.

    Reference:
        Jacob et al., 2018, arXiv 1712.05877, sections 2.4 and 3.2.
    """
    ones = torch.ones(codes.shape[axis], dtype=torch.float64, device=codes.device)
    multiplier = ones if norm is None else norm.scale
    if folded is not None:
        multiplier = multiplier / _precise(folded)
    total = torch.zeros_like(ones) if bias is None else _precise(bias)
    if norm is not None:
        total = total * norm.scale + norm.shift
    step, read = _precise(scale) * multiplier, _precise(input_scale).reshape(())
    needed = torch.maximum(step.abs(), total.abs() / read / LARGEST_BIAS).clamp(min=SMALLEST_SCALE)
    fitted = (_precise(codes) * (step / needed).view(_along(codes, axis))).round().to(torch.int8)
    held_scale = needed.float()
    bias_scale = read.float() * held_scale  # as engines compute it, so that they see that it is the product
    biased = bias is not None or norm is not None
    bias_codes = (total / _precise(bias_scale)).round().to(torch.int32) if biased else None
    return IntegerWeights(fitted, held_scale, axis, bias_codes, bias_scale)


def _precise(numbers: Tensor) -> Tensor:
    return numbers.detach().double()


def _along(codes: Tensor, axis: int) -> list[int]:
    return [-1 if dim == axis % codes.ndim else 1 for dim in range(codes.ndim)]
