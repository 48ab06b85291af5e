"""What every granularity is: a way to cut a weight into tiles, each of which is one unit."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Granularity(ABC):
    """Cut a weight into equal tiles; units are numbered in row-major order of the tiles."""

    @abstractmethod
    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one unit along each dimension of a weight of `shape`, of which it is a divisor.

        Raises:
            InputError: If a weight of this shape cannot be cut.
        """

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the granularity alone fixes, 0.5 for 2:4; None if any will do."""
        return None

    def runs(self, shape: Sequence[int]) -> int:
        """Return into how many equal runs of consecutive units a weight falls that all lose the same fraction."""
        return 1

    def removable(self, scores: Tensor, shape: Sequence[int]) -> Tensor | None:
        """Return `(n_units,)` bool: the units that may go, given their scores; None if all may.

        Args:
            scores: `(n_units,)`; `-inf` marks units that are gone already.
            shape: Shape of the weight.
        """
        return None

    def widths(self, size: int) -> Sequence[int] | None:
        """Return how many of `size` units may stay, ascending; None if any number may."""
        return None

    def units(self, tensor: Tensor) -> Tensor:
        """Return the tiles of `tensor` as `(n_units, unit_size)`."""
        tile = self.tile(tensor.shape)
        sizes = [size for whole, part in zip(tensor.shape, tile, strict=True) for size in (whole // part, part)]
        order = [*range(0, len(sizes), 2), *range(1, len(sizes), 2)]
        return tensor.reshape(sizes).permute(order).reshape(-1, torch.Size(tile).numel())

    def expand(self, keep: Tensor, shape: Sequence[int]) -> Tensor:
        """Return `keep`, `(n_units,)`, as a mask that broadcasts over a weight of `shape`."""
        tile = self.tile(shape)
        mask = keep.view([whole // part for whole, part in zip(shape, tile, strict=True)])
        for dim, part in enumerate(tile):
            if 1 < part < shape[dim]:
                mask = mask.repeat_interleave(part, dim)
        return mask
