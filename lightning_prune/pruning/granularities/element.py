"""Single weights: unstructured pruning."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.pruning.granularities.granularity import Granularity


@dataclass(frozen=True)
class Element(Granularity):
    """Cut a weight into its single entries.

    Reference:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015, arXiv:1506.02626.

    >>> import torch
    >>> Element().units(torch.zeros(16, 8, 3, 3)).shape
    torch.Size([1152, 1])
    """

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one entry."""
        return (1,) * len(shape)
