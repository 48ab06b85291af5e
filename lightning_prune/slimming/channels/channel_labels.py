"""Channel labels: which positions of which tensors are one and the same channel."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """The channels of one tensor, along the dimension on which they vary, or along several that a reshape made of it.

    Args:
        dim: The last of these dimensions, counted from the last of the tensor, which is -1; broadcasting does not
            change it.
        labels: `(channels,)` int64, one label a channel; with several dimensions `(..., channels)`, those up to `dim`,
            of size 1 where channels do not vary.
        zero: bool of the same shape, True where the tensor is exactly zero for any input of the model.
    """

    dim: int
    labels: Tensor
    zero: Tensor

    @staticmethod
    def of(labels: Tensor, zero: Tensor) -> "Axis | None":
        """Return the channels whose labels broadcast over a tensor; None if they vary along no dimension.

        Args:
            labels: int64, of the tensor's rank or less, with size 1 on every dimension along which they do not vary.
            zero: bool of the same shape.
        """
        varying = [dim for dim in range(-labels.ndim, 0) if labels.shape[dim] > 1]
        if not varying:
            return None
        shape = labels.shape[labels.ndim + varying[0] : labels.ndim + varying[-1] + 1]
        return Axis(varying[-1], labels.reshape(shape), zero.reshape(shape))

    @property
    def dims(self) -> list[int]:
        """The dimensions along which the channels vary, counted from the last."""
        ndim = self.labels.ndim
        return [self.dim + 1 - ndim + i for i, size in enumerate(self.labels.shape) if size > 1 or ndim == 1]

    @property
    def is_line(self) -> bool:
        """Whether the channels vary along a single dimension."""
        return self.labels.ndim == 1

    @property
    def spread(self) -> tuple[Tensor, Tensor]:
        """Labels and zeros, `(..., channels, 1, ..., 1)`, which broadcast over the tensor."""
        shape = (*self.labels.shape, *(1,) * (-1 - self.dim))
        return self.labels.view(shape), self.zero.view(shape)

    def along(self, dim: int) -> Tensor:
        """Return `(lines, size)`, the labels along one of the dimensions, for each position along the others."""
        labels = self.labels.movedim(dim - self.dim - 1, -1)
        return labels.reshape(-1, labels.shape[-1])

    def moved(self, move: Callable[[Tensor], Tensor], shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return where the channels lie after `move`, which rearranges a tensor of `shape`.

        What an operator does to the values it does to their labels, so the operator itself is run on the labels.

        Returns:
            Labels and zeros, of the same shape as the new tensor, but of size 1 on every dimension on which they are
            constant.
        """
        labels, zero = self.spread
        codes = move((2 * labels + zero).expand(shape))
        for dim in range(codes.ndim):
            first = codes.narrow(dim, 0, 1)
            if codes.stride(dim) == 0 or torch.equal(codes, first.expand_as(codes)):
                codes = first
        return codes // 2, codes % 2 == 1


def components(count: int, left: Tensor, right: Tensor) -> Tensor:
    """Return, for each of `count` labels, the lowest label that the edges `left[i] - right[i]` connect it with.

    Labels are hooked onto the lowest root next to them and paths are halved, until nothing changes.

    Args:
        count: Number of labels.
        left: `(edges,)` int64.
        right: `(edges,)` int64.

    Returns:
        `(count,)` int64.

    >>> components(5, torch.tensor([1, 3]), torch.tensor([3, 4])).tolist()
    [0, 1, 2, 1, 1]
    """
    root = torch.arange(count)
    while True:
        low = torch.minimum(root[left], root[right])
        hooked = root.scatter_reduce(0, root[left], low, "amin").scatter_reduce(0, root[right], low, "amin")
        hooked = hooked[hooked]
        if torch.equal(hooked, root):
            return root
        root = hooked
