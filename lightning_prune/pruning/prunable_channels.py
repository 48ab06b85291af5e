"""The channels of one group of coupled layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.prunable import Prunable, Reads, join
from lightning_prune.slimming import Group, Member


@dataclass(frozen=True, eq=False)
class PrunableChannels(Prunable):
    """The channels of one group, each in all tensors that can only lose it together.

    Args:
        channels: The group.
        shapes: Shapes of its tensors by name.
        granularity: By what a channel is scored, and how many may stay.
    """

    channels: Group
    shapes: Mapping[str, torch.Size]
    granularity: Channel

    @property
    def layers(self) -> list[str]:
        """Names of the layers that write the channels."""
        return self.channels.layers

    @property
    def filters(self) -> list[str]:
        """Names of the weights that write the channels."""
        return [member.name for member in self.channels.filters]

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.channels.size

    @property
    def group(self) -> Group:
        """The channels."""
        return self.channels

    @property
    def widths(self) -> Sequence[int] | None:
        """How many channels may stay, ascending; None if any number may."""
        positions = math.gcd(*(member.index.shape[1] for member in self.channels.filters))
        return self.granularity.widths(self.size, positions)

    def names(self, reads: Reads) -> list[str]:
        """Return which tensors `matrix` looks at.

        Raises:
            InputError: If the layers have no tensors that a criterion reads.
        """
        return [member.name for member in self._read(reads)]

    def matrix(self, tensors: Mapping[str, Tensor], reads: Reads) -> Tensor:
        """Return the part of `tensors` that a criterion reads, as `(n_units, unit_size)`."""
        return torch.cat([_units(tensors, member).float() for member in self._read(reads)], dim=1)

    def owned(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return all that `masks` take away with each channel, as `(n_units, unit_size)`."""
        members = [m for m in self.channels.members if m in self.channels.owned or m in self._readers]
        return torch.cat([_units(weights, member) for member in members], dim=1)

    def masks(self, keep: Tensor, owned: bool = True) -> dict[str, Tensor]:
        """Return bool masks that broadcast over the tensors, by their names.

        Args:
            keep: `(n_units,)` bool: which channels stay.
            owned: Mask all that exists for the channels, not the filters alone.
        """
        masks: dict[str, Tensor] = {}
        for member in (self.channels.owned if owned else self.channels.filters) + self._readers:
            shape = self.shapes[member.name]
            kept = torch.ones(shape[member.dim], dtype=torch.bool, device=keep.device)
            kept[member.index.to(keep.device)[~keep].reshape(-1)] = False
            join(masks, {member.name: Channel(member.dim).expand(kept, shape)})
        return masks

    def kept(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return `(n_units,)` bool: the channels that masks keep; all where there is no mask."""
        member = self.channels.owned[0]
        if member.name not in masks:
            return torch.ones(self.size, dtype=torch.bool, device=next(iter(masks.values())).device)
        mask = Channel(member.dim).units(masks[member.name]).bool().any(dim=1)
        return mask[member.index[:, 0].to(mask.device)]

    @property
    def _readers(self) -> list[Member]:
        """What reads the channels, if that is what they are scored by; then it goes with them."""
        members = self.channels.members if self.granularity.dim == 1 else ()
        return [member for member in members if member.role == "reader"]

    def _read(self, reads: Reads) -> list[Member]:
        for parts in reads:
            roles = ["reader" if part == "filter" and self.granularity.dim == 1 else part for part in parts]
            if found := [member for member in self.channels.members if member.role in roles]:
                return found
        wanted = " or ".join(sorted({part for parts in reads for part in parts}))
        raise InputError(
            f"expected {', '.join(self.layers)} to have a {wanted} for the criterion to score, found none; use another "
            "criterion or leave these layers out"
        )


def _units(tensors: Mapping[str, Tensor], member: Member) -> Tensor:
    """Return what belongs to each channel in one of its tensors, as `(n_units, unit_size)`."""
    tensor = tensors[member.name]
    return Channel(member.dim).units(tensor)[member.index.to(tensor.device)].flatten(1)
