"""Which channels of a model can only be removed together, and which stay and why, found by a walk over its graph."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from lightning_prune.errors import InputError
from lightning_prune.graph import holder, module_path, one_thread, stored_tensors
from lightning_prune.slimming.channels.blocks import BlockFinder, BlockOrBranch, BlockOrBranchKind
from lightning_prune.slimming.channels.channel_walk import ChannelWalk
from lightning_prune.slimming.channels.facts import KEPT, Facts, Slot, channels_of
from lightning_prune.slimming.channels.groups import Group, Residual, coupled_groups, lone_group
from lightning_prune.slimming.channels.operator_rules import follow


@dataclass(frozen=True, eq=False)
class Coupling:
    """The channels of one model: which are one and the same, and which stay and why, whatever its weights are.

    Args:
        facts: What the walk over its graph found.
        blocks_and_branches: The whole blocks and branches in it, by kind.
        shapes: The shapes of the model's stored tensors by name.
        parameters: The names of those that are parameters.
        channel: `(labels,)` int64, the channel of each label; equal numbers are one channel.
        reasons: Why channels can never go, by their numbers.
    """

    facts: Facts
    blocks_and_branches: dict[BlockOrBranchKind, list[BlockOrBranch]]
    shapes: dict[str, torch.Size]
    parameters: frozenset[str]
    channel: Tensor
    reasons: dict[int, str]

    @cached_property
    def kept(self) -> Tensor:
        """`(labels,)` bool: the channels that can never go, seen at their first labels."""
        kept = torch.zeros(self.facts.labels, dtype=torch.bool)
        kept[list(self.reasons)] = True
        return kept

    @property
    def unread(self) -> list[str]:
        """The parameters that `forward` does not read in eval mode, in an auxiliary head for example."""
        return self.facts.unread

    @property
    def gathers(self) -> dict[str, Tensor]:
        """The index buffers that choose among channels: `(channels,)`, those among which each does, by name."""
        return {name: self.channel[labels] for name, labels in self.facts.gathers.items()}

    @property
    def sized_calls(self) -> list[tuple[str, tuple[Tensor, ...]]]:
        """The calls to which code may tell numbers of channels: the module that makes each, and what each counts.

        Labels, `(..., old size)` each; see `SizedCall`.
        """
        return [("".join(module_path(call.node)[-1:]), call.counted) for call in self.facts.sized_calls if call.counted]

    @property
    def writers(self) -> list[Slot]:
        """Where the filters of convolutions and linear layers lie, in the order of execution."""
        slots = dict.fromkeys(map(self.facts.slot_of, self.facts.filters))
        return [slot for slot in slots if slot is not None]

    def groups(self, residual: Residual = "coupled") -> list[Group]:
        """Return the groups of filters that can be pruned, in the order of the model's layers.

        Args:
            residual: How the channels of residual streams are treated; see `Residual`.
        """
        with one_thread():
            return self._groups(residual)

    def _groups(self, residual: Residual) -> list[Group]:
        filters = [slot for slot in self.writers if slot.name in self.parameters]
        if residual == "independent":
            convolutions = [slot for slot in filters if len(self.shapes[slot.name]) > 2 and self._inside(slot)]
            return [lone_group(self.facts, slot, self.parameters) for slot in convolutions]
        groups = coupled_groups(self.facts, self.channel, self.kept, filters, self.parameters)
        return [group for group in groups if residual == "coupled" or self._writes_alone(group)]

    def _inside(self, slot: Slot) -> bool:
        """Return whether a layer writes channels that are not the model's outputs."""
        reasons = {self.reasons.get(channel, "") for channel in self.channel[slot.labels].tolist()}
        return not any(reason == "are outputs of the model" for reason in reasons)

    def _writes_alone(self, group: Group) -> bool:
        """Return whether a single layer writes the channels of a group; depthwise convolutions pass them on."""
        return len([member for member in group.filters if member.name not in self.facts.whole_groups]) <= 1

    def written(self) -> list[Group]:
        """Return all channels that nothing keeps, those that linear layers write among them."""
        slots = dict.fromkeys(self.facts.slot_of(labels) for labels, _, role in self.facts.owned if role == "writer")
        writers = [slot for slot in slots if slot is not None]
        return coupled_groups(self.facts, self.channel, self.kept, writers, self.parameters)

    def units(self, group: Group) -> Tensor:
        """Return `(n_units,)` int64: the channel that each unit of a group is."""
        first = group.members[0]
        return self.channel[self._starts[first.name, first.dim] + first.index[:, 0]]

    @cached_property
    def _starts(self) -> dict[tuple[str, int], int]:
        return {(slot.name, slot.dim): slot.start for slot in self.facts.slots}

    def activations(self, group: Group) -> Iterator[tuple[Node, int, Tensor]]:
        """Yield where the channels of a group leave activation functions.

        Returns:
            A node of the graph, the dimension of its output, and `(n_units, positions)` the positions of each channel.
        """
        channels = self.units(group)
        for node, axis in self.facts.activations:
            inside = self.channel[axis.labels][None, :] == channels[:, None]
            times = inside.sum(dim=1)
            if times[0] > 0 and (times == times[0]).all():
                yield node, axis.dim, inside.nonzero()[:, 1].view(len(channels), -1)

    def fixed(self) -> dict[str, list[tuple[str, int]]]:
        """Return why channels can never go, as `{reason: [(layer that writes them, number of channels), ...]}`."""
        result: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for slot in self.writers:
            for channel in self.channel[slot.labels].tolist():
                if channel in self.reasons:
                    result[self.reasons[channel]][holder(slot.name)] += 1
        for layer, count, reason in self.facts.unfollowed:
            result[reason][layer] += count
        return {reason: list(layers.items()) for reason, layers in result.items()}


@dataclass(frozen=True, eq=False)
class ZeroTerms:
    """Which channels add nothing to the sums that layers make of them, with the weights of one moment.

    Args:
        sums: The labels of the channels that a layer sums over, True where they are exactly zero or multiplied by
            zeros alone, of the same shape, and the layer.
    """

    sums: tuple[tuple[Tensor, Tensor, Node], ...]


def follow_channels(model: nn.Module, program: ExportedProgram) -> tuple[Coupling, ZeroTerms]:
    """Follow the channels of a model through its graph, and its zeros, which are those of its weights at this moment.

    Args:
        model: The model, which is not changed.
        program: Its exported graph, from any earlier time: weights do not matter to it. That of a model of which this
            is a copy serves too.

    Raises:
        InputError: If the model has no parameters.
    """
    if not stored_tensors(model):
        raise InputError(f"expected a model with parameters, got {type(model).__name__} without any")
    with one_thread():
        walk = follow(model, program)
        _keep_heads(model, walk.facts)
        return _coupling(model, walk), ZeroTerms(tuple(walk.facts.consumed))


def _coupling(model: nn.Module, walk: ChannelWalk) -> Coupling:
    found = BlockFinder(model, walk).find()  # first, since it may find that channels are one
    channel = channels_of(walk.facts)
    reasons = {KEPT: "are tied to channels that are fixed in the model's code"}
    for labels, reason in walk.facts.kept:
        for one in torch.unique(channel[labels]).tolist():
            reasons.setdefault(one, reason)
    return Coupling(
        facts=walk.facts,
        blocks_and_branches=found,
        shapes={name: tensor.shape for name, tensor in stored_tensors(model).items()},
        parameters=frozenset(name for name, _ in model.named_parameters()),
        channel=channel,
        reasons=reasons,
    )


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
