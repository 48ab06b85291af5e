"""Whole slices of a weight along one dimension: filters, input channels, entries of a bias."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lightning_prune.errors import InputError
from lightning_prune.granularities.granularity import Granularity

Residual = Literal["coupled", "inner", "independent"]
"""How channels that residual adds tie together are pruned.

* `"coupled"`: all layers that write to one stream are scored together and lose the same channels, which then go.
* `"inner"`: streams stay whole; only channels that a single layer writes are pruned.
* `"independent"`: every convolution on its own, as the papers do; what it loses in a stream stays in the slim model.
"""


@dataclass(frozen=True)
class Channel(Granularity):
    """Cut a tensor into its slices along `dim`; those of several layers that can only go together are one unit.

    Args:
        dim: 0 scores a channel by the filters that write it, 1 by the weights that read it.
        residual: Treatment of residual streams; see `Residual`.

    Raises:
        InputError: If `residual` is none of its options.

    >>> import torch
    >>> Channel().units(torch.zeros(16, 8, 3, 3)).shape, Channel(dim=1).units(torch.zeros(16, 8, 3, 3)).shape
    (torch.Size([16, 72]), torch.Size([8, 144]))
    """

    dim: int = 0
    residual: Residual = "coupled"

    def __post_init__(self) -> None:
        if self.residual not in get_args(Residual):
            raise InputError(f"expected residual to be one of {', '.join(get_args(Residual))}, got {self.residual!r}")

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one slice."""
        return tuple(1 if dim == self.dim else size for dim, size in enumerate(shape))
