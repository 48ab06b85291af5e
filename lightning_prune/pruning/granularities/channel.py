"""Whole slices of a weight along one dimension: filters, input channels, entries of a bias."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from lightning_prune.arguments import one_of, whole_number
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.slimming import Residual


@dataclass(frozen=True)
class Channel(Granularity):
    """Cut a tensor into its slices along `dim`; those of several layers that can only go together are one unit.

    Kernels that compute so many channels at once take as long for fewer. With `round_to` the number of channels that
    stay in a group of coupled layers is the multiple next to what the sparsity asks for (of two, the larger), or all:
    a group that is no wider than `round_to` stays whole. Sparsity is then met as nearly as that allows. A tensor that
    joins several groups, behind a concatenation for example, is as wide as they are together.

    Args:
        dim: 0 scores a channel by the filters that write it, 1 by the weights that read it.
        residual: Treatment of residual streams; see `Residual`. With `"independent"` a stream has the channels that any
            of its layers keeps, of which there may be any number.
        round_to: What the widths of layers that lose channels are multiples of, in filters: a channel that is several
            filters of a layer, in front of a channel split or a pixel shuffle, counts as so many. 1 for any width.
        min_width: Filters that each layer keeps at least; all, if it has no more.

    Raises:
        InputError: If `dim` or `residual` is none of its options, or `round_to` or `min_width` no whole number of at
            least 1.

    >>> import torch
    >>> Channel().units(torch.zeros(16, 8, 3, 3)).shape, Channel(dim=1).units(torch.zeros(16, 8, 3, 3)).shape
    (torch.Size([16, 72]), torch.Size([8, 144]))
    """

    dim: int = 0
    residual: Residual = "coupled"
    round_to: int = 1
    min_width: int = 1

    def __post_init__(self) -> None:
        one_of("dim, 0 for filters or 1 for input channels,", self.dim, (0, 1))
        one_of("residual", self.residual, get_args(Residual))
        whole_number("round_to", self.round_to)
        whole_number("min_width", self.min_width)

    @property
    def coupled(self) -> bool:
        """Whether a unit takes along all that can only go together with it, in other layers too."""
        return not (self.dim == 1 and self.residual == "independent")

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one slice."""
        return tuple(1 if dim == self.dim else size for dim, size in enumerate(shape))

    def widths(self, size: int, positions: int = 1) -> Sequence[int] | None:
        """Return how many of `size` channels may stay, ascending; None if any number may.

        Args:
            size: Number of channels.
            positions: Filters that each of them is.

        >>> Channel(round_to=8).widths(20), Channel(round_to=8, min_width=12).widths(20, positions=2)
        ([8, 16, 20], [8, 12, 16, 20])
        """
        if self.round_to == self.min_width == 1:
            return None
        step = self.round_to // math.gcd(self.round_to, positions)
        first = step * math.ceil(self.min_width / (positions * step))
        return [*range(first, size, step), size]
