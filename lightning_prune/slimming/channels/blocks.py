"""Whole residual blocks and whole branches of concatenations: what gates them, and what exists for them alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import Node

from lightning_prune.graph import Kind, called, is_kind, module_path
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk
from lightning_prune.slimming.channels.facts import Role, Slot
from lightning_prune.slimming.channels.gates import GateFinder
from lightning_prune.slimming.channels.groups import Member, roles_of
from lightning_prune.slimming.channels.replacements import Replacement, ReplacementFinder

BlockOrBranchKind = Literal["block", "branch"]
"""A residual block, which a sum adds to a shortcut, or a branch, which a concatenation joins with others."""


@dataclass(frozen=True, eq=False)
class BlockOrBranch:
    """A block or branch that can be scaled, and removed, as one.

    Args:
        name: What it is called: the module whose output it is part of, or else that of its last layer.
        kind: Block or branch.
        gates: Where the parameters lie that scale it: multiplied by some m >= 0, in training mode too, they multiply
            its output by m, and all at zero they make it zero. Their index is `(1, positions)`.
        members: All parameters that exist for it alone, and its gates: they are zero when it is removed for good.
        region: The operators that run for it alone.
        channels: `(channels,)`, the labels of the channels that a branch gives; none for a block.
        modules: The modules that go with it, and what takes their places; none if it cannot be removed.
        stored: The names of the parameters and buffers in these modules.
    """

    name: str
    kind: BlockOrBranchKind
    gates: tuple[Member, ...]
    members: tuple[Member, ...]
    region: frozenset[Node]
    channels: Tensor
    modules: tuple[Replacement, ...]
    stored: frozenset[str]

    def is_silent(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether it gives only zeros since its gates are zero in a model's `tensors`, of any shape, by name."""
        return not any(
            tensors[gate.name].detach().index_select(gate.dim, gate.index[0].to(tensors[gate.name].device)).any()
            for gate in self.gates
        )


@dataclass(frozen=True, eq=False)
class _Operand:
    """One operand of a sum or a concatenation, and what runs for it alone."""

    value: Node
    user: Node
    region: frozenset[Node]


class BlockFinder:
    """The blocks and branches of one traced model.

    Args:
        model: The model.
        walk: What a walk has found.
    """

    def __init__(self, model: nn.Module, walk: ChannelWalk) -> None:
        self._walk, self._flow = walk, walk.flow
        self._replacements = ReplacementFinder(model, walk)
        stored = {node: name for node, name in walk.names.items() if node.op == "placeholder"}
        names = {name for name, _ in model.named_parameters()}
        self._parameters = {node: name for node, name in stored.items() if name in names}
        self._gate_finder = GateFinder(
            self._flow, {node: name for node, name in self._parameters.items() if walk.tensors[name].ndim}
        )
        self._readers: dict[str, set[Node]] = defaultdict(set)
        for node, name in self._parameters.items():
            self._readers[name] |= self._flow.users[node]
        self._constant = {node for node in self._flow.order if node.op == "placeholder" and node in stored}
        self._places = _places(walk)

    def find(self) -> dict[BlockOrBranchKind, list[BlockOrBranch]]:
        """Return all blocks and branches, by kind, in the order of execution."""
        found: dict[BlockOrBranchKind, list[BlockOrBranch]] = {"block": [], "branch": []}
        for node in self._flow.order:
            if called(node) == "add":
                found["block"] += self._block(node)
            elif called(node) == "cat":
                found["branch"] += self._branches(node)
        return {kind: _named(_innermost(own)) for kind, own in found.items()}

    def _block(self, node: Node) -> Iterator[BlockOrBranch]:
        arguments = self._flow.arguments[node]
        values = [arguments["self"], arguments["other"]]
        if not all(isinstance(value, Node) for value in values) or values[0] is values[1]:
            return
        if self._walk.shape(values[0]) != self._walk.shape(values[1]):
            return
        shortcut, block = sorted((self._operand(value, node) for value in values), key=self._weights)
        if self._weights(shortcut) == self._weights(block):
            return
        # What is added to what the block itself reads: not the meeting of two networks.
        entries = self._flow.entries(shortcut.region, shortcut.value) - self._constant
        if entries & self._flow.ancestors([block.value]):
            yield from self._whole("block", block, self._gates(block), torch.zeros(0, dtype=torch.int64))

    def _branches(self, node: Node) -> Iterator[BlockOrBranch]:
        arguments = self._flow.arguments[node]
        values = sorted(set(arguments["tensors"]), key=self._flow.order.__getitem__)
        branches = [self._operand(value, node) for value in values]
        branches = [branch for branch in branches if self._weights(branch)]
        norms = self._norms_behind(node)
        for branch in branches if len(branches) > 1 else ():
            channels = self._walk.channels(branch.value, arguments["dim"])
            if channels is None or norms is None:
                continue
            gates = self._slices(norms, channels) if norms else self._gates(branch)
            yield from self._whole("branch", branch, gates, channels.labels)

    def _operand(self, value: Node, user: Node) -> _Operand:
        return _Operand(value, user, self._flow.region(value, user))

    def _read(self, region: frozenset[Node]) -> list[str]:
        """Return the parameters that a region reads, in the order of execution."""
        ordered = sorted(region, key=self._flow.order.__getitem__)
        sources = (source for node in ordered for source in self._flow.inputs[node])
        return list(dict.fromkeys(self._parameters[source] for source in sources if source in self._parameters))

    def _weights(self, operand: _Operand) -> int:
        """Return how many layers with weights run for an operand alone."""
        layers = (node for node in operand.region if is_kind(node, Kind.LAYER))
        return len({self._flow.arguments[node]["weight"] for node in layers})

    def _gates(self, operand: _Operand) -> list[Member]:
        names = self._gate_finder.gates(operand.value, operand.region)
        return [self._member(name) for name in self._read(operand.region) if name in names]

    def _member(self, name: str, index: Tensor | None = None) -> Member:
        """Return the part of a parameter that belongs to a block or branch, all of it by default."""
        slot, role = self._places.get(name, (Slot(name, 0, 0, 0), "writer"))
        if index is None:
            index = torch.arange(self._walk.tensors[name].shape[slot.dim] if self._walk.tensors[name].ndim else 1)
        return Member(name, slot.dim, index[None], role)

    def _norms_behind(self, node: Node) -> list[Node] | None:
        """Return the normalizations of each channel that read a value; None if other layers read it too."""
        norms, others, left = set(), False, [node]
        while left:
            for user in self._flow.users[left.pop()]:
                if is_kind(user, Kind.CHANNEL_NORM):
                    norms.add(user)
                elif is_kind(user, Kind.HOMOGENEOUS):
                    left.append(user)
                else:
                    others = True
        return None if norms and others else sorted(norms, key=self._flow.order.__getitem__)

    def _slices(self, norms: Iterable[Node], channels: Axis) -> list[Member]:
        """Return the scales and shifts of channels in the normalizations that read them; none if one has none."""
        gates = []
        for norm in norms:
            arguments = self._flow.arguments[norm]
            entering = self._walk.channels(arguments["input"], 1)
            for key in ("weight", "bias"):
                name = self._parameters.get(arguments[key])
                if entering is None or name is None or self._readers[name] != {norm}:
                    return []
                index = torch.isin(entering.labels, channels.labels).nonzero()[:, 0]
                if len(index) != len(channels.labels):
                    return []
                gates.append(self._member(name, index))
        return gates

    def _whole(
        self, kind: BlockOrBranchKind, operand: _Operand, gates: list[Member], channels: Tensor
    ) -> Iterator[BlockOrBranch]:
        """Yield an operand as a block or branch; nothing if no parameters gate it, or others use those that it has."""
        names = self._read(operand.region)
        if not gates or any(self._readers[name] - operand.region for name in names):
            return
        members = [gate for gate in gates if gate.name not in names] + [self._member(name) for name in names]
        modules = self._replacements.replacements(operand.value, operand.region)
        around = module_path(operand.user)[-1:] if kind == "block" else [module.name for module in modules[-1:]]
        yield BlockOrBranch(
            "".join(around),
            kind,
            tuple(gates),
            tuple(members),
            operand.region,
            channels,
            modules,
            frozenset(name for module in modules for name in module.stored),
        )


def _places(walk: ChannelWalk) -> dict[str, tuple[Slot, Role]]:
    """Return along which dimension each parameter belongs to what it writes, and as what."""
    filters = [slot for slot in map(walk.facts.slot_of, walk.facts.filters) if slot is not None]
    found = roles_of(walk.facts, filters)
    return {slot.name: (slot, role) for slot, role in found.items() if role not in ("reader", "other")}


def _innermost(found: list[BlockOrBranch]) -> list[BlockOrBranch]:
    """Return the blocks and branches that contain no others."""
    return [one for one in found if not any(other.region < one.region for other in found)]


def _named(found: list[BlockOrBranch]) -> list[BlockOrBranch]:
    """Give names that no other has: those of the last layers, or parameters, where the first fail."""
    for is_layer in (True, False):
        times = Counter(one.name for one in found)
        last = [one.members[-1].layer if is_layer else one.members[-1].name for one in found]
        found = [
            replace(one, name=name) if not one.name or times[one.name] > 1 else one
            for one, name in zip(found, last, strict=True)
        ]
    return found
