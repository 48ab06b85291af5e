"""What units are taken from: one weight, or the channels of one group of coupled layers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_prune.pruning.criteria.criterion import Part
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.slimming import Group

Reads = tuple[tuple[Part, ...], ...]
"""The parts of a channel that a criterion scores; see `Criterion.reads`."""


class Prunable(ABC):
    """Units that lie in the same tensors."""

    granularity: Granularity
    """What units they are."""

    @property
    @abstractmethod
    def layers(self) -> list[str]:
        """Names of the layers that lose a unit."""

    @property
    @abstractmethod
    def filters(self) -> list[str]:
        """Names of the weights that lose a unit."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of units."""

    @property
    def shape(self) -> torch.Size | None:
        """Shape of the weight; None if units lie in several tensors."""
        return None

    @property
    def group(self) -> Group | None:
        """The coupled channels that are the units; None if these are parts of one weight."""
        return None

    @property
    def runs(self) -> int:
        """Number of runs of consecutive units that all lose the same fraction."""
        return 1

    @property
    @abstractmethod
    def widths(self) -> Sequence[int] | None:
        """How many units may stay, ascending; None if any number may."""

    def removable(self, scores: Tensor) -> Tensor | None:
        """Return `(n_units,)` bool, which units may go, given their scores, `(n_units,)`; None if all may."""
        return None

    @abstractmethod
    def names(self, reads: Reads) -> list[str]:
        """Return which tensors `matrix` looks at.

        Raises:
            InputError: If there is nothing that a criterion reads.
        """

    @abstractmethod
    def matrix(self, tensors: Mapping[str, Tensor], reads: Reads) -> Tensor:
        """Return the part of `tensors` that a criterion reads, as `(n_units, unit_size)`."""

    @abstractmethod
    def owned(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return all that `masks` take away with each unit, as `(n_units, unit_size)`."""

    @abstractmethod
    def masks(self, keep: Tensor, owned: bool = True) -> dict[str, Tensor]:
        """Return bool masks that broadcast over the tensors, by their names.

        Args:
            keep: `(n_units,)` bool: which units stay.
            owned: Mask all that exists for channels, not the filters alone.
        """

    @abstractmethod
    def kept(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return `(n_units,)`, 1 for the units that `masks`, of any number format, keep; all where there is no mask."""


def join(masks: dict[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Mask also, in `masks`, what `others` mask; bool tensors by parameter name, of any shape that fits it."""
    for name, mask in others.items():
        masks[name] = masks[name] & mask if name in masks else mask
