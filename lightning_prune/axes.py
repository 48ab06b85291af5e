"""Channel labels: which positions of which tensors are one and the same channel."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """The channels of one tensor, along the one dimension on which they vary.

    Args:
        dim: That dimension, counted from the last, which is -1; broadcasting does not change it.
        labels: `(channels,)` int64, one label a channel.
        zero: `(channels,)` bool, True where the tensor is exactly zero for any input of the model.
    """

    dim: int
    labels: Tensor
    zero: Tensor

    def moved(self, move: Callable[[Tensor], Tensor], shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return where the channels lie after `move`, which rearranges a tensor of `shape`.

        What an operator does to the values it does to their labels, so the operator itself is run on the labels.

        Returns:
            Labels and zeros, of the rank of the new tensor, with size 1 on every dimension on which they are constant.
        """
        codes = (2 * self.labels + self.zero).view(-1, *(1,) * (-1 - self.dim))
        codes = move(codes.expand(shape))
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
