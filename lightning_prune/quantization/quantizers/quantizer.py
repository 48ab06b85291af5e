"""What all quantizers share: how a layer computes with rounded weights and inputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lightning_prune.arguments import shown
from lightning_prune.errors import InputError

FLOAT = 32
"""The number of bits that stands for: not quantized."""


class UnsupportedBits(InputError):
    """A number of bits that a quantizer does not have.

    Args:
        expected: What it has, as a message tells it.
        got: What came.
    """

    def __init__(self, expected: str, got: object) -> None:
        self.expected, self.got = expected, got
        super().__init__(f"expected {expected}, got {shown(got)}")


class Activation(nn.Module, ABC):
    """The rounding of one tensor between layers. It does nothing until it is told to observe, or to quantize."""

    def __init__(self) -> None:
        super().__init__()
        self.observing = False
        """Whether ranges or step sizes are taken from what comes."""
        self.quantizing = False
        """Whether what comes is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, of any shape, rounded, in its own number format."""
        if self.observing:
            self.observe(x.detach().float())
        if self.quantizing:
            return self.round(x.float()).to(x.dtype)
        # Distributed training expects a gradient of everything that is learned, from the first step on.
        return sum((0 * parameter for parameter in self.parameters()), x) if self.training else x

    def observe(self, x: Tensor) -> None:
        """Learn from a detached tensor of a training batch, `(n, ...)`, where its numbers lie."""

    @abstractmethod
    def round(self, x: Tensor) -> Tensor:
        """Return `x`, of any shape, on the grid, with the gradient that the method gives it."""

    def limit(self) -> Tensor | None:
        """Return the largest magnitude on the grid, `()`; None if it is fixed. Infinite until it is known."""
        return None


class Layer(nn.Module):
    """A convolution or a linear layer that computes with rounded numbers.

    Args:
        weight: Rounds the weight, of the shape of the weight.
        input: Rounds what the layer reads; None if that is float, or comes rounded.
        represents_zero: Whether `weight` leaves a zero as it is. If not, pruned weights are put back to zero behind it:
            they are exactly zero, and their gradient is that of any other, so that soft pruning lets them grow back.
    """

    def __init__(self, weight: nn.Module, input: Activation | None, represents_zero: bool) -> None:
        super().__init__()
        self.weight = weight
        self.input = input
        self.represents_zero = represents_zero
        self.folds = False
        """See `Quantizer.folds`."""

    def forward(
        self,
        function: Callable[..., Tensor],
        scale: Tensor | None,
        x: Tensor,
        weight: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Return what `function` computes of the rounded `x` and `weight`.

        Args:
            function: Such as `F.conv2d`; called with `x`, `weight`, `args` and `kwargs`.
            scale: See `rounded`.
            x: What the layer reads, `(n, n_inputs, ...)`, or `(..., n_inputs)` if it is linear.
            weight: The stored weight, `(n_outputs, n_inputs, ...)`, of a transposed convolution the other way round.
            args: The bias and what else `function` takes.
            kwargs: The same, by name.
        """
        read = x if self.input is None else self.input(x)
        return function(read, self.rounded(weight, scale), *args, **kwargs)

    def rounded(self, weight: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return the weight that the layer computes with, of the same shape as `weight`; a zero is exactly zero.

        Args:
            weight: The stored weight, `(..., n_outputs, ...)`.
            scale: What the batch norm behind the layer multiplies its outputs by, `(1, ..., n_outputs, ..., 1)`, no
                entry zero: the weight is rounded as it is when the batch norm is folded into it, and divided again,
                since the batch norm still runs (Krishnamoorthi 2018, section 3.2.2). None to round it as it is.
        """
        weight32 = weight.float()
        rounded: Tensor = self.weight(weight32) if scale is None else self.weight(weight32 * scale) / scale
        if not self.represents_zero:
            rounded = rounded - torch.where(weight == 0, rounded, 0.0).detach()
        return rounded.to(weight.dtype)


class Quantizer(ABC):
    """A method of rounding; a frozen dataclass of its bits and constants."""

    integer: ClassVar[bool] = False
    """Whether all that flows between layers is rounded too, as a network that runs in integers needs it: the outputs of
    layers behind their batch norm and activation function, sums, concatenations and averages."""
    represents_zero: ClassVar[bool] = True
    """Whether the weights' levels include zero."""
    whole_filters: ClassVar[bool] = False
    """Whether zeros can only be whole filters, since a weight among others has no third value."""
    edge_bits: ClassVar[int | None] = FLOAT
    """Bits of the first and the last layer unless somebody says otherwise; None for as many as the others."""
    drops_relu: ClassVar[bool] = False
    """Whether the activation functions in front of its layers are left out, since it is one itself."""

    @property
    def folds(self) -> bool:
        """Whether it matters to the rounding of weights that the batch norm behind them will be folded in."""
        return False

    @abstractmethod
    def weight(self, weight: Tensor, axis: int) -> nn.Module:
        """Return what rounds a weight: a module that takes it and returns it rounded.

        Args:
            weight: As it is at the beginning, `(..., n_outputs, ...)`, two dimensions or more; it sets learned levels.
            axis: Its dimension of output channels.
        """

    @abstractmethod
    def activation(self, signed: bool) -> Activation | None:
        """Return what rounds a tensor between layers, None if that stays float.

        Args:
            signed: Whether it can be negative.
        """

    def layer(self, weight: nn.Module, input: Activation | None) -> Layer:
        """Return a layer that computes with what `weight` and `input` round."""
        return Layer(weight, input, self.represents_zero)

    def of_bits(self, bits: int) -> "Quantizer | None":
        """Return the same method with other bits for weights and activations, None for float.

        Raises:
            UnsupportedBits: If its levels are fixed, or it has not so many.
        """
        if bits == FLOAT:
            return None
        raise UnsupportedBits(f"{FLOAT} bits, which is float, since {type(self).__name__} has fixed levels", bits)


def check_bits(name: str, bits: int, least: int = 2, most: int = 8) -> None:
    """Refuse a number of bits that is neither in a range nor `FLOAT`.

    Raises:
        UnsupportedBits: If it is not.
    """
    whole = isinstance(bits, int) and not isinstance(bits, bool)
    if not whole or not (least <= bits <= most or bits == FLOAT):
        raise UnsupportedBits(f"{name} from {least} to {most}, or {FLOAT} for float", bits)


Bits = TypeVar("Bits", bound="FewBits")


class FewBits(Protocol):
    """A quantizer, a dataclass, whose bits can be chosen."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def weight_bits(self) -> int:
        """Of its weights."""

    @property
    def activation_bits(self) -> int:
        """Of the tensors between layers."""


def with_bits(quantizer: Bits, bits: int) -> Bits | None:
    """Return a quantizer with other bits for all that it rounds; None for float."""
    if bits == FLOAT:
        return None
    weight, activation = (FLOAT if own == FLOAT else bits for own in (quantizer.weight_bits, quantizer.activation_bits))
    return replace(quantizer, weight_bits=weight, activation_bits=activation)
