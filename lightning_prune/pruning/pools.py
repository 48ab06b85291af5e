"""What competes when units are pruned: the units of one weight, or the channels of one group of coupled layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.graph import holder
from lightning_prune.pruning.criteria.criterion import Part
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.prunable_weights import prunable_weights
from lightning_prune.slimming import Group, Member

Reads = tuple[tuple[Part, ...], ...]
"""The parts of a channel that a criterion scores; see `Criterion.reads`."""


FILTERS = Channel()
"""Channels by the filters that write them, as they are pruned unless a user says otherwise."""


@dataclass(frozen=True, eq=False)
class WeightPool:
    """The units of one weight.

    Args:
        name: Name of the stored tensor.
        shape: Its shape.
        granularity: How it is cut.
    """

    name: str
    shape: torch.Size
    granularity: Granularity

    @property
    def layers(self) -> list[str]:
        """Name of the layer."""
        return [holder(self.name)]

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
        """Return the part of `tensors` that a criterion reads, as `(n_units, unit_size)`."""
        return self.granularity.units(tensors[self.name])

    def removable(self, scores: Tensor) -> Tensor | None:
        """Return which units may go, given their scores; None if all may."""
        return self.granularity.removable(scores, self.shape)

    def masks(self, keep: Tensor, owned: bool = True) -> dict[str, Tensor]:
        """Return `keep`, `(n_units,)` bool, as a mask that broadcasts over the tensor, by its name."""
        return {self.name: self.granularity.expand(keep, self.shape)}

    def kept(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return `(n_units,)`, 1 for the units that masks keep, in their number format; all where there is no mask."""
        if self.name not in masks:
            return torch.ones(self.size, dtype=torch.bool, device=next(iter(masks.values())).device)
        return self.granularity.units(masks[self.name].expand(self.shape))[:, 0]


@dataclass(frozen=True, eq=False)
class ChannelPool:
    """The channels of one group, each in all tensors that can only lose it together.

    Args:
        group: The group.
        shapes: Shapes of its tensors by name.
        granularity: By what a channel is scored, and how many may stay.
    """

    group: Group
    shapes: Mapping[str, torch.Size]
    granularity: Channel

    runs = 1

    @property
    def name(self) -> str:
        """Name of its first tensor."""
        return self.group.members[0].name

    @property
    def layers(self) -> list[str]:
        """Names of the layers that write the channels."""
        return self.group.layers

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.group.size

    @property
    def dim(self) -> int:
        """0 if a channel is scored by what writes it, 1 if by what reads it."""
        return self.granularity.dim

    @property
    def widths(self) -> Sequence[int] | None:
        """How many channels may stay, ascending; None if any number may."""
        positions = math.gcd(*(member.index.shape[1] for member in self.group.filters))
        return self.granularity.widths(self.size, positions)

    def names(self, reads: Reads) -> list[str]:
        """Return which tensors `matrix` looks at.

        Raises:
            InputError: If the layers have no tensors that a criterion reads.
        """
        return [member.name for member in self._read(reads)]

    def matrix(self, tensors: Mapping[str, Tensor], reads: Reads) -> Tensor:
        """Return the part of `tensors` that a criterion reads, as `(n_units, unit_size)`."""
        parts = []
        for member in self._read(reads):
            tensor = tensors[member.name]
            parts.append(Channel(member.dim).units(tensor)[member.index.to(tensor.device)].flatten(1).float())
        return torch.cat(parts, dim=1)

    def _read(self, reads: Reads) -> list[Member]:
        for parts in reads:
            roles = ["reader" if part == "filter" and self.dim == 1 else part for part in parts]
            if found := [member for member in self.group.members if member.role in roles]:
                return found
        wanted = " or ".join(sorted({part for parts in reads for part in parts}))
        raise InputError(
            f"expected {', '.join(self.layers)} to have a {wanted} for the criterion to score, found none; use another "
            "criterion or leave these layers out"
        )

    def removable(self, scores: Tensor) -> Tensor | None:
        """Return None: any channel may go."""
        return None

    def masks(self, keep: Tensor, owned: bool = True) -> dict[str, Tensor]:
        """Return `keep`, `(n_units,)` bool, as masks that broadcast over the tensors, by their names.

        Args:
            keep: Which channels stay.
            owned: Mask all that exists for the channels, not the filters alone.
        """
        masks: dict[str, Tensor] = {}
        members = self.group.owned if owned else self.group.filters
        if self.dim == 1:
            members = members + [member for member in self.group.members if member.role == "reader"]
        for member in members:
            shape = self.shapes[member.name]
            kept = torch.ones(shape[member.dim], dtype=torch.bool, device=keep.device)
            kept[member.index.to(keep.device)[~keep].reshape(-1)] = False
            join(masks, {member.name: Channel(member.dim).expand(kept, shape)})
        return masks

    def kept(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Return `(n_units,)` bool: the channels that masks keep; all where there is no mask."""
        member = self.group.owned[0]
        if member.name not in masks:
            return torch.ones(self.size, dtype=torch.bool, device=next(iter(masks.values())).device)
        mask = Channel(member.dim).units(masks[member.name]).bool().any(dim=1)
        return mask[member.index[:, 0].to(mask.device)]


Pool = WeightPool | ChannelPool


def join(masks: dict[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Mask also, in `masks`, what `others` mask."""
    for name, mask in others.items():
        masks[name] = masks[name] & mask if name in masks else mask


def weight_pools(model: nn.Module, granularity: Granularity) -> tuple[list[Pool], dict[str, str]]:
    """Return the pools of a model's weights, and by layer why a weight cannot be cut.

    Args:
        model: Any module.
        granularity: How its weights are cut.
    """
    pools: list[Pool] = []
    uncut: dict[str, str] = {}
    for name, weight in prunable_weights(model).items():
        try:
            granularity.tile(weight.shape)
        except InputError as error:
            uncut[holder(name)] = str(error)
        else:
            pools.append(WeightPool(name, weight.shape, granularity))
    return pools, uncut
