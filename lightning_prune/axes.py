"""Channel labels: which positions of which tensors are one and the same channel."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axis:
    """The channels of one tensor, along the dimensions on which they vary.

    Args:
        labels: int64, one label a channel, of the tensor's rank, with size 1 on every dimension on which the label
            does not change, `(1, channels, 1, 1)` for an image batch.
        zero: bool, of the same shape: True where the tensor is exactly zero for any input of the model.
    """

    labels: Tensor
    zero: Tensor

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimensions on which the label changes."""
        return tuple(dim for dim, size in enumerate(self.labels.shape) if size > 1)

    def aligned(self, rank: int) -> "Axis":
        """Return the same axis of a tensor that broadcasting has given leading dimensions up to `rank`."""
        missing = (None,) * (rank - self.labels.ndim)
        return Axis(self.labels[missing], self.zero[missing])

    def moved(self, move: Callable[[Tensor], Tensor], shape: torch.Size) -> "Axis":
        """Return where the channels lie after `move`, which rearranges a tensor of `shape`.

        What an operator does to the values it does to their labels, so the operator itself is run on the labels.
        """
        return Axis(*(_compressed(move(part.expand(shape))) for part in (self.labels, self.zero))).matched()

    def matched(self) -> "Axis":
        """Return labels and zeros with one shape."""
        labels, zero = torch.broadcast_tensors(self.labels, self.zero)
        return Axis(labels, zero)


def _compressed(values: Tensor) -> Tensor:
    """Return `values` with size 1 on every dimension along which they are constant."""
    for dim in range(values.ndim):
        first = values.narrow(dim, 0, 1)
        if values.stride(dim) == 0 or bool((values == first).all()):
            values = first
    return values


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
