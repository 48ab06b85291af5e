"""Groups of filters that can be pruned: which channels compete, and in which tensors each of them lies."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_prune.graph import holder, stored_tensors
from lightning_prune.slimming.channels.channel_walk import KEPT, Facts, Role, Slot

Residual = Literal["coupled", "inner", "independent"]
"""How channels that residual adds tie together are pruned.

* `"coupled"`: all layers that write to one stream are scored together and lose the same channels, which then go.
* `"inner"`: streams stay whole; only channels that a single layer writes are pruned.
* `"independent"`: every convolution on its own, as the papers do; what it loses in a stream stays in the slim model.
"""


@dataclass(frozen=True, eq=False)
class Member:
    """The part that one dimension of one stored tensor has in a group.

    Args:
        name: Name of the stored tensor.
        dim: The dimension.
        index: `(n_units, positions)` int64, the positions of each unit along `dim`.
        role: What the tensor is to the channels; see `Role`.
    """

    name: str
    dim: int
    index: Tensor
    role: Role

    @property
    def layer(self) -> str:
        """Name of the module that holds the tensor."""
        return holder(self.name)


@dataclass(frozen=True, eq=False, repr=False)
class Group:
    """Units that compete with each other: each unit is one channel, in all tensors that must lose it together."""

    members: tuple[Member, ...]

    def __repr__(self) -> str:
        """Return its size and its members in one line."""
        return f"Group({self.size} units: {', '.join(member.name for member in self.members)})"

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.members[0].index)

    @property
    def filters(self) -> list[Member]:
        """The members that write the channels: the filters of convolutions, the rows of linear layers."""
        return [member for member in self.members if member.role == "filter"]

    @property
    def owned(self) -> list[Member]:
        """The members that exist for the channels alone, and are zero when those are removed for good."""
        return [member for member in self.members if member.role not in ("reader", "other")]

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose filters the group holds."""
        return list(dict.fromkeys(member.layer for member in self.filters))

    @torch.no_grad()
    def zero(self, model: nn.Module, units: Tensor | Sequence[int]) -> None:
        """Set, in place, all that exists for some units of the group to zero: then `slim` can cut them out.

        Args:
            model: The model in which the group was found, or a copy.
            units: `(n,)` numbers of units from 0 on, or `(size,)` bool.
        """
        tensors, chosen = stored_tensors(model), _numbers(units)
        for member in self.owned:
            tensor = tensors[member.name]
            tensor.index_fill_(member.dim, member.index[chosen].reshape(-1).to(tensor.device), 0)


def _numbers(units: Tensor | Sequence[int]) -> Tensor:
    """Return numbers of units, or which units, as a tensor that indexes."""
    numbers = torch.as_tensor(units).cpu()
    return numbers if numbers.dtype == torch.bool else numbers.long()


def lone_group(facts: Facts, slot: Slot, parameters: Collection[str]) -> Group:
    """Return the filters of one convolution, with what exists for each of them.

    Args:
        facts: What a walk has found.
        slot: Where the filters lie.
        parameters: Names of the tensors that can be pruned; the others are buffers.
    """
    members = [Member(slot.name, slot.dim, torch.arange(slot.size)[:, None], "filter")]
    for owner, parameter, role in facts.owned:
        unit = owner - slot.start
        inside = (unit >= 0) & (unit < slot.size)
        other = facts.slot_of(parameter[inside]) if inside.any() else None
        if other is None or other == slot or other.name not in parameters:
            continue
        order = unit[inside].argsort(stable=True)
        every = torch.arange(slot.size).repeat_interleave(len(order) // slot.size)
        if torch.equal(unit[inside][order], every):
            index = (parameter[inside][order] - other.start).view(slot.size, -1)
            members.append(Member(other.name, other.dim, index, role))
    return Group(tuple(members))


def coupled_groups(
    facts: Facts, channel: Tensor, kept: Tensor, filters: list[Slot], parameters: Collection[str]
) -> list[Group]:
    """Return the channels that filters write and nothing keeps, by the tensors in which they lie.

    Args:
        facts: What a walk has found.
        channel: `(labels,)`, the channel of each label.
        kept: `(labels,)` bool, the channels that must stay.
        filters: Where filters lie.
        parameters: Names of the tensors that can be pruned; the others are buffers.
    """
    roles = roles_of(facts, filters)
    kinds = _kinds(facts, channel).masked_fill(kept, KEPT)
    places = _places(facts, channel, kinds)
    result = []
    for kind in dict.fromkeys(kind for slot in filters for kind in kinds[channel[slot.labels]].tolist()):
        members = []
        for slot, index in places[kind].items() if kind != KEPT else ():
            # A parameter of another kind, a table of positions for example, exists for the channels as a bias does.
            role = roles.get(slot, "bias") if slot.name in parameters else "other"
            members.append(Member(slot.name, slot.dim, index, role))
        if members:
            result.append(Group(tuple(members)))
    return result


def roles_of(facts: Facts, filters: list[Slot]) -> dict[Slot, Role]:
    """Return what stored tensors are to the channels along one of their dimensions."""
    roles: dict[Slot, Role] = {}
    for labels in facts.readers:
        if (slot := facts.slot_of(labels)) is not None:
            roles[slot] = "reader"
    for _, parameter, role in facts.owned:
        if (slot := facts.slot_of(parameter)) is not None:
            roles[slot] = role
    return roles | dict.fromkeys(filters, "filter")


def _kinds(facts: Facts, channel: Tensor) -> Tensor:
    """Return `(labels,)`: for each channel a number, the same for all that lie equally often in the same tensors."""
    kinds = torch.ones(facts.labels, dtype=torch.int64)
    for slot in facts.slots:
        channels, times = torch.unique(channel[slot.labels], return_counts=True)
        pairs = kinds[channels] * (1 + slot.size) + times
        kinds[channels] = kinds.max() + 1 + torch.unique(pairs, return_inverse=True)[1]
    return kinds


def _places(facts: Facts, channel: Tensor, kinds: Tensor) -> dict[int, dict[Slot, Tensor]]:
    """Return, by kind and slot, the positions of each channel of that kind, `(channels, positions)`."""
    places: dict[int, dict[Slot, Tensor]] = defaultdict(dict)
    for slot in facts.slots:
        channels = channel[slot.labels]
        order = (kinds[channels] * facts.labels + channels).argsort(stable=True)
        found, sizes = torch.unique_consecutive(kinds[channels][order], return_counts=True)
        for kind, index in zip(found.tolist(), torch.split(order, sizes.tolist()), strict=True):
            if kind != KEPT:
                places[kind][slot] = index.view(len(torch.unique_consecutive(channels[index])), -1)
    return places
