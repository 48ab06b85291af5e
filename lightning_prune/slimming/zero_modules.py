"""Modules of zeros, which stand in a slim model where a whole block or branch was removed."""

import torch
from torch import Tensor, nn


class ZeroPassThrough(nn.Identity):
    """Pass on the zeros that a removed module gets from one before it."""


class ZeroOutput(nn.Module):
    """Give zeros of the shape that the output of a removed module had, whatever the input holds.

    Args:
        width: Number of channels; with 0 the output has none, and a concatenation is as if it was not there.
        dim: The channel dimension, counted from the last.
        strides: By what each dimension of the input is divided, rounding up; the channel dimension by 1.
    """

    zeros: Tensor

    def __init__(self, width: int, dim: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.strides = dim, strides
        # A tensor, although it holds nothing but zeros, so that slimming can follow its channels and remove some.
        self.register_buffer("zeros", torch.zeros(width), persistent=False)

    def forward(self, x: Tensor, *others: object) -> Tensor:
        """Return zeros `(..., width, ...)` for `x`, `(..., channels, ...)`, and leave it and all `others` unread."""
        shape = [-(-size // stride) for size, stride in zip(x.shape, self.strides, strict=True)]
        shape[self.dim] = len(self.zeros)
        zeros = self.zeros.to(x.dtype).view(-1, *(1,) * (-1 - self.dim))
        return zeros.expand(shape).clone()  # memory of its own: the code behind may write into it

    def extra_repr(self) -> str:
        """Return the shape in words."""
        return f"{len(self.zeros)}, dim={self.dim}, strides={self.strides}"
