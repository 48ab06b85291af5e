"""Which channels of a model can only be removed together, found by one walk over its `torch.export` graph."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, export, holder, module_path, one_thread, stored_tensors, suspended
from lightning_prune.slimming.channels.blocks import BlockFinder, BlockOrBranch, BlockOrBranchKind
from lightning_prune.slimming.channels.facts import KEPT, Facts, Slot, channels_of
from lightning_prune.slimming.channels.groups import Group, Member, Residual, coupled_groups, lone_group
from lightning_prune.slimming.channels.operator_rules import follow

__all__ = ["Coupling", "Group", "Member", "Residual", "couple"]


class Coupling:
    """The channels of one model: which are one and the same, which must stay and why, and which do nothing.

    Args:
        model: The traced model.
        facts: What the walk over its graph found.
        structures: The whole blocks and branches in it, by kind.
    """

    def __init__(
        self, model: nn.Module, facts: Facts, structures: dict[BlockOrBranchKind, list[BlockOrBranch]]
    ) -> None:
        self._facts = facts
        self._structures = structures
        self._parameters = {name for name, _ in model.named_parameters()}
        self.shapes = {name: tensor.shape for name, tensor in stored_tensors(model).items()}
        self._starts = {(slot.name, slot.dim): slot.start for slot in facts.slots}
        self.channel = channels_of(facts)
        """`(labels,)` the channel of each label; equal numbers are one channel."""
        self._reasons: dict[int, str] = {KEPT: "are tied to channels that are fixed in the model's code"}
        for labels, reason in facts.kept:
            for channel in torch.unique(self.channel[labels]).tolist():
                self._reasons.setdefault(channel, reason)
        self._kept = torch.zeros(facts.labels, dtype=torch.bool)
        self._kept[list(self._reasons)] = True

    @property
    def unread(self) -> list[str]:
        """The parameters that `forward` does not read in eval mode, in an auxiliary head for example."""
        return self._facts.unread

    @property
    def gathers(self) -> dict[str, Tensor]:
        """The index buffers that choose among channels: the channels among which each does, by name."""
        return {name: self.channel[labels] for name, labels in self._facts.gathers.items()}

    @property
    def sites(self) -> list[tuple[str, tuple[Tensor, ...]]]:
        """The calls to which code may tell numbers of channels: the module that makes each, and what each counts."""
        return [
            ("".join(module_path(site.node)[-1:]), site.counted) for site in self._facts.sized_calls if site.counted
        ]

    def groups(self, residual: Residual = "coupled") -> list[Group]:
        """Return the groups of filters that can be pruned, in the order of the model's layers.

        Args:
            residual: How the channels of residual streams are treated; see `Residual`.
        """
        with one_thread():
            return self._groups(residual)

    def _groups(self, residual: Residual) -> list[Group]:
        filters = [slot for slot in self._writers() if slot.name in self._parameters]
        if residual == "independent":
            convolutions = [slot for slot in filters if len(self.shapes[slot.name]) > 2 and self._inside(slot)]
            return [lone_group(self._facts, slot, self._parameters) for slot in convolutions]
        groups = coupled_groups(self._facts, self.channel, self._kept, filters, self._parameters)
        return [group for group in groups if residual == "coupled" or self._writes_alone(group)]

    def units(self, group: Group) -> Tensor:
        """Return `(n_units,)`: the channel that each unit of a group is."""
        first = group.members[0]
        return self.channel[self._starts[first.name, first.dim] + first.index[:, 0]]

    def fixed(self) -> dict[str, list[tuple[str, int]]]:
        """Return why channels can never go, as `{reason: [(layer that writes them, number of channels), ...]}`."""
        result: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for slot in self._writers():
            for channel in self.channel[slot.labels].tolist():
                if channel in self._reasons:
                    result[self._reasons[channel]][holder(slot.name)] += 1
        for layer, count, reason in self._facts.unfollowed:
            result[reason][layer] += count
        return {reason: list(layers.items()) for reason, layers in result.items()}

    def structures(self, kind: BlockOrBranchKind) -> list[BlockOrBranch]:
        """Return the residual blocks, or the branches of concatenations, in the order of execution."""
        return self._structures[kind]

    def written(self) -> list[Group]:
        """Return all channels that nothing keeps, those that linear layers write among them."""
        slots = dict.fromkeys(self._facts.slot_of(labels) for labels, _, role in self._facts.owned if role == "writer")
        writers = [slot for slot in slots if slot is not None]
        return coupled_groups(self._facts, self.channel, self._kept, writers, self._parameters)

    def _writers(self) -> list[Slot]:
        """Return where the filters of convolutions and linear layers lie, in the order of execution."""
        slots = dict.fromkeys(map(self._facts.slot_of, self._facts.filters))
        return [slot for slot in slots if slot is not None]

    def _inside(self, slot: Slot) -> bool:
        """Return whether a layer writes channels that are not the model's outputs."""
        reasons = {self._reasons.get(channel, "") for channel in self.channel[slot.labels].tolist()}
        return not any(reason == "are outputs of the model" for reason in reasons)

    def _writes_alone(self, group: Group) -> bool:
        """Return whether a single layer writes the channels of a group; depthwise convolutions pass them on."""
        return len([member for member in group.filters if member.name not in self._facts.whole_groups]) <= 1

    def activations(self, group: Group) -> Iterator[tuple[Node, int, Tensor]]:
        """Yield where the channels of a group leave activation functions.

        Returns:
            A node of the graph, the dimension of its output, and `(n_units, positions)` the positions of each channel.
        """
        channels = self.units(group)
        for node, axis in self._facts.activations:
            inside = self.channel[axis.labels][None, :] == channels[:, None]
            times = inside.sum(dim=1)
            if times[0] > 0 and (times == times[0]).all():
                yield node, axis.dim, inside.nonzero()[:, 1].view(len(channels), -1)

    def silent(self, tensors: Mapping[str, Tensor]) -> list[BlockOrBranch]:
        """Return the blocks and branches whose gates are zero in `tensors`."""
        return [one for found in self._structures.values() for one in found if one.is_silent(tensors)]

    def leaving(self, structures: Iterable[BlockOrBranch], removed: Tensor) -> list[BlockOrBranch]:
        """Return those of some silent structures that can go as a whole when the `removed` channels do.

        These are blocks, whose sums are then their shortcuts, and branches all of whose channels are removed.
        """
        return [
            one
            for one in structures
            if one.modules and (one.kind == "block" or bool(removed[self.channel[one.channels]].all()))
        ]

    def inside(self, structures: Iterable[BlockOrBranch]) -> Tensor:
        """Return `(labels,)` bool: the channels of branches, which go with these."""
        inside = torch.zeros(self._facts.labels, dtype=torch.bool)
        for one in structures:
            if one.kind == "branch":
                inside[self.channel[one.channels]] = True
        return inside

    def removable(self, structures: Sequence[BlockOrBranch] = ()) -> Tensor:
        """Return `(labels,)` bool: the channels that can go without changing any output, seen at their first label.

        These are the channels that nothing forces to stay and that add nothing to any sum they enter. Every dimension
        of every tensor keeps at least one channel.

        Args:
            structures: Silent structures, which go as a whole if they can.
        """
        return self._settle(self._unread, structures)

    def _settle(
        self, chosen: Callable[[Sequence[BlockOrBranch]], Tensor], structures: Sequence[BlockOrBranch]
    ) -> Tensor:
        """Return the `chosen` channels, which depend on the structures that go, that leave no tensor empty."""
        gone = self.leaving(structures, torch.ones(self._facts.labels, dtype=torch.bool))
        while True:
            removed = self._leave_one(chosen(gone), gone)
            left = self.leaving(gone, removed)
            if len(left) == len(gone):
                return removed
            gone = left

    def _unread(self, gone: Sequence[BlockOrBranch]) -> Tensor:
        """Return the channels that nothing keeps and that add nothing to any sum outside of what is gone."""
        region = frozenset(node for one in gone for node in one.region)
        unread = torch.zeros(self._facts.labels, dtype=torch.bool)
        for labels, _, _ in self._facts.consumed:
            unread[self.channel[labels]] = True
        for labels, adds_nothing, layer in self._facts.consumed:
            if layer not in region:
                unread[self.channel[labels[~adds_nothing]]] = False
        return unread & ~self._kept

    def _leave_one(self, removed: Tensor, gone: Sequence[BlockOrBranch]) -> Tensor:
        """Return the `removed` channels without one of each tensor that would have none left and is not gone."""
        stored = {name for one in gone for name in one.stored}
        slots = [slot for slot in self._facts.slots if slot.name not in stored]
        removed = removed.clone()
        while empty := [slot for slot in slots if removed[self.channel[slot.labels]].all()]:
            for slot in empty:
                removed[self.channel[slot.start]] = False
        return removed

    def without(self, groups: list[Group], pruned: list[Tensor], structures: Sequence[BlockOrBranch] = ()) -> Tensor:
        """Return the channels that go when units and structures are removed; every other tensor keeps one channel.

        Args:
            groups: Groups of filters.
            pruned: The units that go, `(n_units,)` bool for each group.
            structures: Silent structures, which go as a whole if they can.
        """
        chosen = torch.zeros(self._facts.labels, dtype=torch.bool)
        for group, units in zip(groups, pruned, strict=True):
            chosen[self.units(group)[units]] = True
        chosen &= ~self._kept
        return self._settle(lambda gone: chosen | self._read_by(gone), structures)

    def _read_by(self, gone: Sequence[BlockOrBranch]) -> Tensor:
        """Return the channels that nothing keeps and that are read by what is gone alone."""
        region = frozenset(node for one in gone for node in one.region)
        inside = torch.zeros(self._facts.labels, dtype=torch.bool)
        outside = torch.zeros_like(inside)
        for labels, _, layer in self._facts.consumed if gone else ():
            (inside if layer in region else outside)[self.channel[labels]] = True
        return inside & ~outside & ~self._kept

    def by_tensor(self, removed: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the `removed` channels in parts, `(labels,)` bool each, with the first tensor in which they lie."""
        left = removed.clone()
        for slot in self._facts.slots:
            part = torch.zeros_like(left)
            part[self.channel[slot.labels]] = True
            part &= left
            if part.any():
                left &= ~part
                yield slot.name, part

    def keep(self, removed: Tensor, gone: Sequence[BlockOrBranch] = ()) -> dict[str, dict[int, Tensor]]:
        """Return, by tensor name and dimension, the positions that stay when the `removed` channels go.

        Args:
            removed: `(labels,)` bool, as `removable` returns it.
            gone: The structures that go as a whole: of their tensors nothing stays.
        """
        result: dict[str, dict[int, Tensor]] = defaultdict(dict)
        for slot in self._facts.slots:
            lost = removed[self.channel[slot.labels]]
            if lost.any():
                result[slot.name][slot.dim] = (~lost).nonzero().reshape(-1)
        nothing = torch.zeros(0, dtype=torch.int64)
        return dict(result) | {name: {0: nothing} for one in gone for name in one.stored}

    def group_counts(self, keep: dict[str, dict[int, Tensor]]) -> dict[str, int]:
        """Return how many groups are left in convolutions and group norms that lose whole ones, by weight name."""
        widths = self._facts.whole_groups.items()
        return {name: len(keep[name][0]) // width for name, width in widths if 0 in keep.get(name, {})}

    def parameters(self, keep: dict[str, dict[int, Tensor]], names: set[str]) -> int:
        """Return how many elements the tensors `names` have when only `keep` stays."""
        return sum(self._numel(name, keep) for name in names)

    def macs(self, keep: dict[str, dict[int, Tensor]]) -> int:
        """Return the multiply-accumulates of the convolutions and linear layers when only `keep` stays.

        For the whole example batch: it serves for ratios.
        """
        return sum(self._numel(name, keep) * positions for name, positions in self._facts.costs)

    def _numel(self, name: str, keep: dict[str, dict[int, Tensor]]) -> int:
        dims = keep.get(name, {})
        shape = self.shapes[name] or (1,)
        return torch.Size([len(dims[dim]) if dim in dims else size for dim, size in enumerate(shape)]).numel()

    def zero_but_kept(
        self, model: nn.Module, removed: Tensor, gone: Sequence[BlockOrBranch] = ()
    ) -> dict[str, list[tuple[str, int]]]:
        """Return why filters that are zero stay, as `{reason: [(layer, number of filters), ...]}`.

        Args:
            model: The model that was traced.
            removed: The channels that go, as `removable` returns them.
            gone: The structures that go.
        """
        tensors = stored_tensors(model)
        stored = {name for one in gone for name in one.stored}
        alive = "still reach a layer: by a bias, a batch-norm shift or another layer of their residual stream"
        last = self._unread(gone) & ~removed
        result: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for slot in (slot for slot in self._writers() if slot.name not in stored):
            weights = tensors[slot.name].detach().movedim(slot.dim, 0).flatten(1)
            channels = self.channel[slot.labels]
            for channel in channels[(weights == 0).all(dim=1).cpu() & ~removed[channels]].tolist():
                reason = (
                    "are the last of a layer, or relied upon" if last[channel] else self._reasons.get(channel, alive)
                )
                result[reason][holder(slot.name)] += 1
        return {reason: list(layers.items()) for reason, layers in result.items()}


def _keep_heads(model: nn.Module, facts: Facts) -> None:
    """Keep what the code of `nn.MultiheadAttention` fixes: its heads, and the channels that it reads."""
    names = {name for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    reason = "are heads and inputs of nn.MultiheadAttention, whose code fixes their number"
    for call in facts.sized_calls if names else ():
        if "".join(module_path(call.node)[-1:]) in names:
            for labels in call.counted:
                facts.keep(labels, reason)
    for slot in facts.slots if names else ():
        owner, _, key = slot.name.rpartition(".")
        if owner in names and key.endswith("proj_weight") and slot.dim == 1:
            facts.keep(torch.arange(slot.start, slot.start + slot.size), reason)


def couple(model: nn.Module, example_input: ExampleInput) -> Coupling:
    """Find which channels of a model can only be removed together, and which must stay.

    Args:
        model: Any module whose `forward` takes the example input. It is not changed.
        example_input: A tensor or a tuple of tensors.

    Raises:
        InputError: If `forward` does not run on the example input or cannot be traced, or the model has no parameters.
    """
    with suspended():
        return trace(model, export(model, example_input))


def trace(model: nn.Module, program: ExportedProgram) -> Coupling:
    """Follow the channels of a model through its exported graph, or through that of a model of which it is a copy.

    Raises:
        InputError: If the model has no parameters.
    """
    if not stored_tensors(model):
        raise InputError(f"expected a model with parameters, got {type(model).__name__} without any")
    with one_thread():
        return _trace(model, program)


def _trace(model: nn.Module, program: ExportedProgram) -> Coupling:
    walk = follow(model, program)
    _keep_heads(model, walk.facts)
    return Coupling(model, walk.facts, BlockFinder(model, walk).find())
