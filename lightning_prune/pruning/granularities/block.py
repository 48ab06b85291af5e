"""Blocks of output times input channels, one at each kernel position."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.arguments import whole_number
from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.granularity import Granularity


@dataclass(frozen=True)
class Block(Granularity):
    """Cut a weight into blocks of its matrix of outputs times inputs, for convolutions one matrix a kernel position.

    They are also the blocks of the matrix that a convolution multiplies by when channels come last.

    Args:
        rows: Outputs in a block.
        columns: Inputs in a block.

    Raises:
        InputError: If `rows` or `columns` is not a whole number of at least 1.

    Reference:
        Narang et al., Block-Sparse Recurrent Neural Networks, 2017, arXiv:1711.02782.

    >>> import torch
    >>> Block(4, 2).units(torch.zeros(16, 8, 3, 3)).shape
    torch.Size([144, 8])
    """

    rows: int = 4
    columns: int = 4

    def __post_init__(self) -> None:
        whole_number("rows", self.rows)
        whole_number("columns", self.columns)

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one block.

        Raises:
            InputError: If the weight is no matrix, or blocks do not fill it.
        """
        if len(shape) < 2 or shape[0] % self.rows or shape[1] % self.columns:
            raise InputError(
                f"expected a weight that {self.rows} x {self.columns} blocks of outputs x inputs fill, "
                f"got shape {tuple(shape)}: set other rows and columns, or leave the layer out"
            )
        return (self.rows, self.columns, *[1] * (len(shape) - 2))
