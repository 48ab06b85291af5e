"""Whole slices of a weight along one dimension: filters, input channels, entries of a bias."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Channel:
    """Cut a tensor into its slices along `dim`; of a convolution's weight, dimension 0 holds the filters."""

    dim: int = 0

    def units(self, tensor: Tensor) -> Tensor:
        """Return the slices as `(n_units, unit_size)`.

        >>> import torch
        >>> Channel().units(torch.zeros(16, 8, 3, 3)).shape
        torch.Size([16, 72])
        """
        return tensor.movedim(self.dim, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]

    def expand(self, keep: Tensor, rank: int) -> Tensor:
        """Return `keep`, `(n_units,)` bool, as a mask that broadcasts over tensors of `rank` dimensions."""
        shape = [1] * rank
        shape[self.dim] = -1
        return keep.view(shape)
