"""What can be removed of a model: channels that add nothing, or that are chosen, and whole blocks and branches."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lightning_prune.graph import holder, stored_tensors
from lightning_prune.slimming.channels.blocks import BlockOrBranch
from lightning_prune.slimming.channels.coupling import Coupling, ZeroTerms
from lightning_prune.slimming.channels.groups import Group


@dataclass(frozen=True, eq=False)
class Removal:
    """What goes.

    Args:
        channels: `(labels,)` bool, the channels that go, seen at their first labels.
        whole: The blocks and branches that go with all their layers.
    """

    channels: Tensor
    whole: tuple[BlockOrBranch, ...] = ()

    @property
    def stored(self) -> frozenset[str]:
        """The names of the tensors of which nothing stays."""
        return frozenset(name for one in self.whole for name in one.stored)

    def sparing(self, channels: Tensor) -> "Removal":
        """Return what goes when some channels, `(labels,)` bool, stay."""
        return replace(self, channels=self.channels & ~channels)


def silent_wholes(coupling: Coupling, tensors: Mapping[str, Tensor]) -> list[BlockOrBranch]:
    """Return the blocks and branches whose gates are zero in the `tensors`, of any shape, of a model by name."""
    return [one for found in coupling.blocks_and_branches.values() for one in found if one.is_silent(tensors)]


def of_branches(coupling: Coupling, whole: Iterable[BlockOrBranch]) -> Tensor:
    """Return `(labels,)` bool: the channels of the branches among `whole`, which go with these."""
    inside = torch.zeros(coupling.facts.labels, dtype=torch.bool)
    for one in whole:
        if one.kind == "branch":
            inside[coupling.channel[one.channels]] = True
    return inside


def removable(coupling: Coupling, zero: ZeroTerms, whole: Sequence[BlockOrBranch] = ()) -> Removal:
    """Return what can go without changing any output.

    These are the channels that nothing forces to stay and that add nothing to any sum they enter. Every dimension of
    every tensor keeps at least one channel.

    Args:
        coupling: The channels.
        zero: Which of them add nothing.
        whole: Silent blocks and branches, which go as a whole if they can.
    """
    return _settled(coupling, lambda gone: _unread(coupling, zero, gone), whole)


def removal_of_units(
    coupling: Coupling, groups: Sequence[Group], pruned: Sequence[Tensor], whole: Sequence[BlockOrBranch] = ()
) -> Removal:
    """Return what goes when units, and blocks and branches are removed; every other tensor keeps one channel.

    Args:
        coupling: The channels.
        groups: Groups of filters.
        pruned: The units that go, `(n_units,)` bool for each group.
        whole: Silent blocks and branches, which go as a whole if they can.
    """
    channels = torch.zeros(coupling.facts.labels, dtype=torch.bool)
    for group, units in zip(groups, pruned, strict=True):
        channels[coupling.units(group)[units]] = True
    channels &= ~coupling.kept
    return _settled(coupling, lambda gone: channels | _read_by(coupling, gone), whole)


def removal_of_zero_filters(coupling: Coupling, groups: Sequence[Group], tensors: Mapping[str, Tensor]) -> Removal:
    """Return what goes when units do whose filters are all zero, and blocks and branches that give nothing but zeros.

    Args:
        coupling: The channels.
        groups: Groups of filters.
        tensors: The parameters of the model, of any shape, by name.
    """
    silent = silent_wholes(coupling, tensors)
    stored = {name for one in silent for name in one.stored}
    return removal_of_units(coupling, groups, [_zero_units(group, tensors, stored) for group in groups], silent)


def _zero_units(group: Group, tensors: Mapping[str, Tensor], gone: Collection[str]) -> Tensor:
    """Return `(n_units,)` bool: the units of a group whose filters are all zero, or lie in tensors that are gone."""
    zero = torch.ones(group.size, dtype=torch.bool)
    for member in group.filters:
        if member.name not in gone:
            filters = tensors[member.name].detach().movedim(member.dim, 0).flatten(1)
            zero &= (filters == 0).all(dim=1).cpu()[member.index].all(dim=1)
    return zero


def _settled(
    coupling: Coupling, choose: Callable[[Sequence[BlockOrBranch]], Tensor], whole: Sequence[BlockOrBranch]
) -> Removal:
    """Return the channels that `choose` chooses knowing what goes as a whole, and that leave no tensor empty."""
    gone = _leaving(coupling, whole, torch.ones(coupling.facts.labels, dtype=torch.bool))
    while True:
        channels = _leave_one(coupling, choose(gone), gone)
        left = _leaving(coupling, gone, channels)
        if len(left) == len(gone):
            return Removal(channels, tuple(_leaving(coupling, whole, channels)))
        gone = left


def _leaving(coupling: Coupling, whole: Iterable[BlockOrBranch], channels: Tensor) -> list[BlockOrBranch]:
    """Return those of some silent blocks and branches that can go as a whole when `channels` go.

    These are blocks, whose sums are then their shortcuts, and branches all of whose channels are removed.
    """
    return [
        one
        for one in whole
        if one.modules and (one.kind == "block" or bool(channels[coupling.channel[one.channels]].all()))
    ]


def _leave_one(coupling: Coupling, channels: Tensor, gone: Sequence[BlockOrBranch]) -> Tensor:
    """Return `channels` without one of each tensor that would have none left and is not gone."""
    stored = {name for one in gone for name in one.stored}
    slots = [slot for slot in coupling.facts.slots if slot.name not in stored]
    channels = channels.clone()
    while empty := [slot for slot in slots if channels[coupling.channel[slot.labels]].all()]:
        for slot in empty:
            channels[coupling.channel[slot.start]] = False
    return channels


def _unread(coupling: Coupling, zero: ZeroTerms, gone: Sequence[BlockOrBranch]) -> Tensor:
    """Return the channels that nothing keeps and that add nothing to any sum outside of what is gone."""
    region = frozenset(node for one in gone for node in one.region)
    unread = torch.zeros(coupling.facts.labels, dtype=torch.bool)
    for labels, _, _ in zero.sums:
        unread[coupling.channel[labels]] = True
    for labels, adds_nothing, layer in zero.sums:
        if layer not in region:
            unread[coupling.channel[labels[~adds_nothing]]] = False
    return unread & ~coupling.kept


def _read_by(coupling: Coupling, gone: Sequence[BlockOrBranch]) -> Tensor:
    """Return the channels that nothing keeps and that are read by what is gone alone."""
    region = frozenset(node for one in gone for node in one.region)
    inside = torch.zeros(coupling.facts.labels, dtype=torch.bool)
    outside = torch.zeros_like(inside)
    for labels, _, layer in coupling.facts.consumed if gone else ():
        (inside if layer in region else outside)[coupling.channel[labels]] = True
    return inside & ~outside & ~coupling.kept


def by_tensor(coupling: Coupling, channels: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield `channels` in parts, `(labels,)` bool each, with the name of the first tensor in which they lie."""
    left = channels.clone()
    for slot in coupling.facts.slots:
        part = torch.zeros_like(left)
        part[coupling.channel[slot.labels]] = True
        part &= left
        if part.any():
            left &= ~part
            yield slot.name, part


def zero_but_kept(
    coupling: Coupling, zero: ZeroTerms, model: nn.Module, removal: Removal
) -> dict[str, list[tuple[str, int]]]:
    """Return why filters that are zero stay, as `{reason: [(layer, number of filters), ...]}`.

    Args:
        coupling: The channels.
        zero: Which of them add nothing.
        model: The model that was followed.
        removal: What goes.
    """
    tensors, stored = stored_tensors(model), removal.stored
    alive = "still reach a layer: by a bias, a batch-norm shift or another layer of their residual stream"
    last = _unread(coupling, zero, removal.whole) & ~removal.channels
    result: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for slot in (slot for slot in coupling.writers if slot.name not in stored):
        weights = tensors[slot.name].detach().movedim(slot.dim, 0).flatten(1)
        channels = coupling.channel[slot.labels]
        for channel in channels[(weights == 0).all(dim=1).cpu() & ~removal.channels[channels]].tolist():
            reason = (
                "are the last of a layer, or relied upon" if last[channel] else coupling.reasons.get(channel, alive)
            )
            result[reason][holder(slot.name)] += 1
    return {reason: list(layers.items()) for reason, layers in result.items()}
