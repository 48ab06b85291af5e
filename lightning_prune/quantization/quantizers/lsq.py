"""Step sizes that are learned (LSQ)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function

from lightning_prune.quantization.quantizers.quantizer import FLOAT, Activation, Quantizer, check_bits, with_bits
from lightning_prune.quantization.quantizers.rounding import SMALLEST_STEP, mean_magnitude, on_grid


@dataclass(frozen=True)
class LSQ(Quantizer):
    """Learn the distance of two levels of each weight and each layer's input, as any other parameter.

    Weights and inputs of both signs have one level more below zero than above; inputs that are never negative have all
    theirs from zero up.

    Args:
        weight_bits: 2 to 8, or 32 for float.
        activation_bits: 2 to 8, or 32 for float.

    Raises:
        InputError: If a number of bits is none of these.

    Reference:
        Esser et al., Learned Step Size Quantization, 2020, arXiv:1902.08153.
    """

    weight_bits: int = 4
    activation_bits: int = 4

    edge_bits: ClassVar[int | None] = 8

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits)
        check_bits("activation_bits", self.activation_bits)

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return an `LSQWeight` for a weight of any shape, or what changes nothing."""
        return nn.Identity() if self.weight_bits == FLOAT else LSQWeight(self.weight_bits, weight)

    def activation(self, signed: bool) -> Activation | None:
        """Return an `LSQActivation`, None for float."""
        return None if self.activation_bits == FLOAT else LSQActivation(self.activation_bits, signed)

    def of_bits(self, bits: int) -> Quantizer | None:
        """Return the same method with other bits, None for float."""
        return with_bits(self, bits)


class LSQWeight(nn.Module):
    """A weight on a grid with one learned step.

    Args:
        bits: Of its levels.
        weight: From which the step is set.
    """

    def __init__(self, bits: int, weight: Tensor) -> None:
        super().__init__()
        self.low, self.high = _levels(bits, signed=True)
        magnitude = mean_magnitude(weight.detach().float(), None).reshape(())
        self.step = nn.Parameter(_first_step(magnitude, self.high))

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight`, of any shape, rounded."""
        return lsq(weight, self.step, self.low, self.high, weight.numel())


class LSQActivation(Activation):
    """A layer's input on a grid with one learned step, set from the first batch that is not all zero.

    Args:
        bits: Of its levels.
        signed: Whether it can be negative.
    """

    initialized: Tensor
    """`()` bool: whether the step is set."""

    def __init__(self, bits: int, signed: bool) -> None:
        super().__init__()
        self.low, self.high = _levels(bits, signed)
        self.step = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Set the step from a batch of any shape, unless an earlier one did; one with inf or NaN does not."""
        magnitude = x.abs().mean()
        usable = (magnitude > 0) & magnitude.isfinite()
        first = usable & ~self.initialized
        self.step.copy_(torch.where(first, _first_step(magnitude, self.high), self.step))
        self.initialized.logical_or_(usable)

    def round(self, x: Tensor) -> Tensor:
        """Return `x`, `(n, ...)`, on the grid."""
        return lsq(x, self.step, self.low, self.high, x.shape[1:].numel())

    def limit(self) -> Tensor | None:
        """Return the magnitude of the outermost level, `()`."""
        return torch.where(self.initialized, self.step.detach() * max(self.high, -self.low), torch.inf)


def lsq(x: Tensor, step: Tensor, low: int, high: int, numbers: int) -> Tensor:
    """Return the multiple of `step` next to each number, from `low` to `high` steps.

    The gradient of `x` is 1 between the outermost levels, else 0. That of `step` is `round(x / step) - x / step` there,
    `low` below and `high` above, summed, and scaled down to the size of the weights' gradients.

    Args:
        x: Of any shape.
        step: `()`; one that has become negative counts as the smallest, and still learns.
        low: Steps of the lowest level.
        high: Steps of the highest.
        numbers: How many numbers share the step: those of the weight, or of one sample.

    Reference:
        Esser et al., 2020, arXiv:1902.08153, equations 1 to 3 and 5, section 2.2.
    """
    return _LSQ.apply(x, step, low, high, (max(numbers, 1) * high) ** -0.5)  # type: ignore[no-any-return, no-untyped-call]


class _LSQ(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, low: int, high: int, scale: float) -> Tensor:
        used = step.clamp_min(SMALLEST_STEP)
        rounded = on_grid(x, used, low, high)
        ctx.save_for_backward(x, used, rounded)
        ctx.low, ctx.high, ctx.scale = low, high, scale
        return rounded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, step, rounded = ctx.saved_tensors
        levels = x.div(step)
        # In the place of the levels: a tensor more that lives at once costs more than what is computed in it.
        to_x = torch.ops.aten.hardtanh_backward.grad_input(grad, levels, ctx.low, ctx.high, grad_input=levels)
        to_step = (_dot(grad, rounded) - _dot(to_x, x)) / step
        return to_x, to_step * ctx.scale, None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of all products, `()`, without a tensor of products."""
    if a.dim() == 4 and a.is_contiguous(memory_format=torch.channels_last):
        a, b = a.movedim(1, -1), b.movedim(1, -1)  # a view of it can be flattened
    return torch.dot(a.flatten(), b.flatten())


def _levels(bits: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest level in steps."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _first_step(magnitude: Tensor, high: int) -> Tensor:
    """Return the step for numbers of a mean magnitude, `()`."""
    return magnitude.mul(2 / high**0.5).clamp_min(SMALLEST_STEP)
