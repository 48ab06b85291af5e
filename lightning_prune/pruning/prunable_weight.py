"""The units of one weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.graph import holder
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.prunable import Prunable, Reads


@dataclass(frozen=True, eq=False)
class PrunableWeight(Prunable):
    """The units of one weight.

    Args:
        name: Name of the stored tensor.
        weight_shape: Its shape.
        granularity: How it is cut.
    """

    name: str
    weight_shape: torch.Size
    granularity: Granularity

    @property
    def layers(self) -> list[str]:
        """Name of the layer."""
        return [holder(self.name)]

    @property
    def filters(self) -> list[str]:
        """Name of the weight."""
        return [self.name]

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight."""
        return self.weight_shape

    @property
    def size(self) -> int:
        """Number of units."""
        return self.shape.numel() // torch.Size(self.granularity.tile(self.shape)).numel()

    @property
    def runs(self) -> int:
        """Number of runs of consecutive units that all lose the same fraction."""
        return self.granularity.runs(self.shape)

    @property
    def widths(self) -> Sequence[int] | None:
        """How many units may stay, ascending; None if any number may."""
        return self.granularity.widths(self.size)

    def removable(self, scores: Tensor) -> Tensor | None:
        """Return `(n_units,)` bool, which units may go, given their scores, `(n_units,)`; None if all may."""
        return self.granularity.removable(scores, self.shape)

    def names(self, reads: Reads) -> list[str]:
        """Return which tensors `matrix` looks at.

        Raises:
            InputError: If a criterion reads anything but weights.
        """
        if ("filter",) not in reads:
            raise InputError(
                f"expected a criterion that scores weights for granularity {type(self.granularity).__name__}, got one "
                "that scores channels; use granularity Channel(), at the command line granularity=output_channel"
            )
        return [self.name]

    def matrix(self, tensors: Mapping[str, Tensor], reads: Reads) -> Tensor:
        """Return the weight as `(n_units, unit_size)`."""
        return self.granularity.units(tensors[self.name])

    def owned(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the weight as `(n_units, unit_size)`."""
        return self.granularity.units(weights[self.name])

    def masks(self, keep: Tensor, owned: bool = True) -> dict[str, Tensor]:
        """Return `keep`, `(n_units,)` bool, as a mask that broadcasts over the weight, by its name."""
        return {self.name: self.granularity.expand(keep, self.shape)}

    def kept(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return `(n_units,)`, 1 for the units that masks keep, in their number format; all where there is no mask."""
        if self.name not in masks:
            return torch.ones(self.size, dtype=torch.bool, device=next(iter(masks.values())).device)
        return self.granularity.units(masks[self.name].expand(self.shape))[:, 0]
