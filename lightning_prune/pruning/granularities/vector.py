"""Consecutive entries along one dimension of a weight, such as the rows of its kernels."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.arguments import whole_number
from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.granularity import Granularity


@dataclass(frozen=True)
class Vector(Granularity):
    """Cut a weight into vectors along one dimension.

    Args:
        length: Entries of one vector; None for the whole dimension, a row of a kernel.
        dim: Dimension that a vector runs along: -1 for rows of kernels, -2 for columns.

    Raises:
        InputError: If `length` is not a whole number of at least 1, or `dim` no whole number.

    Reference:
        Mao et al., Exploring the Regularity of Sparse Structure in Convolutional Neural Networks, 2017,
        arXiv:1705.08922.

    >>> import torch
    >>> Vector().units(torch.zeros(16, 8, 3, 3)).shape, Vector(length=4).units(torch.zeros(10, 64)).shape
    (torch.Size([384, 3]), torch.Size([160, 4]))
    """

    length: int | None = None
    dim: int = -1

    def __post_init__(self) -> None:
        if self.length is not None:
            whole_number("length", self.length)
        whole_number("dim", self.dim, least=None)

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one vector.

        Raises:
            InputError: If the weight does not have the dimension, or vectors do not fill it; without `length` also
                if it has no kernels, for then a vector would be all that a neuron reads.
        """
        if not -len(shape) <= self.dim < len(shape):
            raise InputError(f"expected a weight with a dimension {self.dim} for vectors, got shape {tuple(shape)}")
        if self.length is None and len(shape) < 3:
            raise InputError(f"expected a vector length for a weight without kernels, got null, shape {tuple(shape)}")
        tile = [1] * len(shape)
        tile[self.dim] = self.length or shape[self.dim]
        if shape[self.dim] % tile[self.dim]:
            raise InputError(
                f"expected a vector length that divides dimension {self.dim} of shape {tuple(shape)}, "
                f"got {self.length}: set another length, or leave the layer out"
            )
        return tuple(tile)
