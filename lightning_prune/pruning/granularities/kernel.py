"""Kernels: the links from one input channel to one output channel (connectivity pruning)."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.arguments import flag
from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.granularity import Granularity


@dataclass(frozen=True)
class Kernel(Granularity):
    """Cut the weight of a convolution into its kernels.

    Args:
        per_filter: Take the same number of kernels from every filter, so that all have the same work.

    Raises:
        InputError: If `per_filter` is neither True nor False.

    Reference:
        Ma et al., PCONV: The Missing but Desirable Sparsity in DNN Weight Pruning for Real-time Execution on Mobile
        Devices, 2020, arXiv:1909.05073 (connectivity sparsity).

    >>> import torch
    >>> Kernel().units(torch.zeros(16, 8, 3, 3)).shape, Kernel(per_filter=True).runs((16, 8, 3, 3))
    (torch.Size([128, 9]), 16)
    """

    per_filter: bool = False

    def __post_init__(self) -> None:
        flag("per_filter", self.per_filter)

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one kernel.

        Raises:
            InputError: If the weight has no kernels.
        """
        if len(shape) < 3:
            raise InputError(f"expected the weight of a convolution to cut into kernels, got shape {tuple(shape)}")
        return (1, 1, *shape[2:])

    def runs(self, shape: Sequence[int]) -> int:
        """Return the number of filters if each loses the same number of kernels, else 1."""
        return shape[0] if self.per_filter else 1
