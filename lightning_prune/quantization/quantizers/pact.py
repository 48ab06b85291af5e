"""Bounds of activations that are learned (PACT)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Function

from lightning_prune.arguments import number
from lightning_prune.quantization.quantizers.dorefa import dorefa_weight
from lightning_prune.quantization.quantizers.quantizer import FLOAT, Activation, Quantizer, check_bits, with_bits
from lightning_prune.quantization.quantizers.rounding import SMALLEST_STEP, inside, on_grid


@dataclass(frozen=True)
class PACT(Quantizer):
    """Learn for each layer where its input is cut off; weights are those of DoReFa.

    Inputs of both signs, which the paper has not, are cut off at both ends of `[-alpha, alpha]`, with
    `2^(activation_bits - 1) - 1` levels on each side of zero. The paper decays `alpha` as the weights.

    Args:
        weight_bits: 1 to 8, or 32 for float.
        activation_bits: 2 to 8, or 32 for float.
        alpha: The bound at the beginning.

    Raises:
        InputError: If a number is out of its range.

    Reference:
        Choi et al., PACT: Parameterized Clipping Activation for Quantized Neural Networks, 2018, arXiv:1805.06085.
    """

    weight_bits: int = 4
    activation_bits: int = 4
    alpha: float = 10.0

    represents_zero: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_bits("weight_bits", self.weight_bits, least=1)
        check_bits("activation_bits", self.activation_bits)
        number("alpha, where inputs are cut off,", self.alpha, "(0, inf)")

    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return what rounds a weight of any shape as DoReFa does."""
        return dorefa_weight(self.weight_bits)

    def activation(self, signed: bool) -> Activation | None:
        """Return a `PACTActivation`, None for float."""
        return None if self.activation_bits == FLOAT else PACTActivation(self.activation_bits, signed, self.alpha)

    def of_bits(self, bits: int) -> Quantizer | None:
        """Return the same method with other bits, None for float."""
        return with_bits(self, bits)


class PACTActivation(Activation):
    """A layer's input, cut off at a learned bound, with equal distances between its levels.

    Args:
        bits: Of its levels.
        signed: Whether it can be negative.
        alpha: The bound at the beginning.
    """

    def __init__(self, bits: int, signed: bool, alpha: float) -> None:
        super().__init__()
        self.high: int = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        self.low = -self.high if signed else 0
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))

    def round(self, x: Tensor) -> Tensor:
        """Return `x`, of any shape, on the grid."""
        return pact(x, self.alpha, self.low, self.high)

    def limit(self) -> Tensor | None:
        """Return the bound, `()`."""
        return self.alpha.detach()


def pact(x: Tensor, alpha: Tensor, low: int, high: int) -> Tensor:
    """Return the multiple of `alpha / high` next to each number, from `low` to `high` of them.

    The gradient of `x` is 1 between the outermost levels, else 0. That of `alpha` is 1 from `alpha` on, and -1 up to
    `-alpha` if there are levels.

    Args:
        x: Of any shape.
        alpha: `()`; one that has become negative counts as next to nothing, and still learns.
        low: The lowest level, 0 or `-high`.
        high: The highest level.

    Reference:
        Choi et al., 2018, arXiv:1805.06085, equations 1 to 3.
    """
    return _PACT.apply(x, alpha, low, high)  # type: ignore[no-any-return, no-untyped-call]


class _PACT(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, low: int, high: int) -> Tensor:
        step = alpha.clamp_min(SMALLEST_STEP) / high
        rounded = on_grid(x, step, low, high)
        ctx.save_for_backward(x, step, rounded)
        ctx.low, ctx.high = low, high
        return rounded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, step, rounded = ctx.saved_tensors
        levels = x.div(step)
        to_x = inside(grad, levels, ctx.low, ctx.high)
        # In the place of the levels: a tensor more that lives at once costs more than what is computed in it.
        to_alpha = torch.sub(grad, to_x, out=levels).mul_(rounded).sum() / (step * ctx.high)
        return to_x, to_alpha, None, None
