"""Which channels of a model can only be removed together, found by one walk over its `torch.export` graph."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_prune.axes import components
from lightning_prune.errors import InputError
from lightning_prune.operators import visit
from lightning_prune.tracing import ExampleInput, export, stored_tensors
from lightning_prune.walk import KEPT, Facts, Gather, Slot, Walk

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
        role: `"filter"`, scored and zeroed by every pruner; `"owned"`, zeroed with its channel when that is to be
            removed for good (bias, batch-norm scale and shift); `"other"`, only cut by slimming.
    """

    name: str
    dim: int
    index: Tensor
    role: Literal["filter", "owned", "other"]

    @property
    def layer(self) -> str:
        """Name of the module that holds the tensor."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that compete with each other: each unit is one channel, in all tensors that must lose it together."""

    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.members[0].index)

    @property
    def filters(self) -> list[Member]:
        """The members that are scored: the filters of convolutions."""
        return [member for member in self.members if member.role == "filter"]

    @property
    def layers(self) -> list[str]:
        """Names of the convolutions whose filters the group holds."""
        return list(dict.fromkeys(member.layer for member in self.filters))


class Coupling:
    """The channels of one model: which are one and the same, which must stay and why, and which do nothing.

    Args:
        model: The traced model.
        facts: What the walk over its graph found.
    """

    def __init__(self, model: nn.Module, facts: Facts) -> None:
        self._facts = facts
        self.shapes = {name: tensor.shape for name, tensor in stored_tensors(model).items()}
        edges = facts.edges or [(torch.zeros(0, dtype=torch.int64),) * 2]
        self.channel = components(facts.labels, *(torch.cat(side) for side in zip(*edges, strict=True)))
        """`(labels,)` the channel of each label; equal numbers are one channel."""
        self._reasons: dict[int, str] = {KEPT: "are tied to channels that are fixed in the model's code"}
        for labels, reason in facts.kept:
            for channel in self.channel[labels].unique().tolist():
                self._reasons.setdefault(channel, reason)
        self._kept = torch.zeros(facts.labels, dtype=torch.bool)
        self._kept[list(self._reasons)] = True

    @property
    def gathers(self) -> list[Gather]:
        """The index buffers whose values change with the channels that are removed."""
        return self._facts.gathers

    def _labels(self, slot: Slot) -> Tensor:
        return torch.arange(slot.start, slot.start + slot.size)

    def _slot_of(self, labels: Tensor) -> Slot | None:
        """Return the slot in which all `labels` lie."""
        return next(
            (s for s in self._facts.slots if s.start <= int(labels.min()) and int(labels.max()) < s.start + s.size),
            None,
        )

    def groups(self, residual: Residual = "coupled") -> list[Group]:
        """Return the groups of filters that can be pruned, in the order of the model's layers.

        Args:
            residual: How the channels of residual streams are treated; see `Residual`.
        """
        filters = {slot.start: slot for slot in map(self._slot_of, self._facts.filters) if slot is not None}
        owned: dict[int, list[Tensor]] = defaultdict(list)
        for owner, parameter in self._facts.owned:
            owned[int(owner.reshape(-1)[0])].append(parameter)
        if residual == "independent":
            return [self._lone_group(slot, owned[slot.start]) for slot in filters.values() if self._inside(slot)]
        return self._coupled_groups(filters, inner=residual == "inner")

    def _inside(self, slot: Slot) -> bool:
        """Return whether a layer writes channels that are not the model's outputs."""
        reasons = {self._reasons.get(channel, "") for channel in self.channel[self._labels(slot)].tolist()}
        return not any(reason == "are outputs of the model" for reason in reasons)

    def _lone_group(self, slot: Slot, owned: list[Tensor]) -> Group:
        positions = torch.arange(slot.size)[:, None]
        own = [self._slot_of(parameter) for parameter in owned]
        members = [Member(slot.name, slot.dim, positions, "filter")]
        members += [Member(s.name, s.dim, positions, "owned") for s in own if s not in (None, slot)]  # type: ignore[union-attr]
        return Group(tuple(members))

    def _coupled_groups(self, filters: dict[int, Slot], inner: bool) -> list[Group]:
        owned = torch.zeros(self._facts.labels, dtype=torch.bool)
        for _, parameter in self._facts.owned:
            owned[parameter.reshape(-1)] = True
        places: dict[int, dict[Slot, list[int]]] = defaultdict(lambda: defaultdict(list))
        for slot in self._facts.slots:
            channels = self.channel[slot.start : slot.start + slot.size].tolist()
            for position, channel in enumerate(channels):
                places[channel][slot].append(position)
        units: dict[tuple, list[int]] = defaultdict(list)
        for slot in filters.values():
            for channel in self.channel[self._labels(slot)].unique().tolist():
                if not self._kept[channel]:
                    shape = tuple((slot, len(positions)) for slot, positions in places[channel].items())
                    units[shape].append(channel)
        result = []
        for shape, found in units.items():
            channels = list(dict.fromkeys(found))
            writers = [slot for slot, _ in shape if slot.start in filters and slot.name not in self._facts.whole_groups]
            if inner and len(writers) > 1:
                continue
            members = []
            for slot, _ in shape:
                index = torch.tensor([places[channel][slot] for channel in channels])
                role = "filter" if slot.start in filters else "owned" if bool(owned[slot.start]) else "other"
                members.append(Member(slot.name, slot.dim, index, role))  # type: ignore[arg-type]
            result.append(Group(tuple(members)))
        return result

    def removable(self) -> Tensor:
        """Return `(labels,)` bool: the channels that can go without changing any output, seen at their first label.

        These are the channels that nothing forces to stay and that add nothing to any sum they enter. Every dimension
        of every tensor keeps at least one channel.
        """
        silent = torch.zeros(self._facts.labels, dtype=torch.bool)
        for labels, _ in self._facts.consumed:
            silent[self.channel[labels]] = True
        for labels, unread in self._facts.consumed:
            silent[self.channel[labels[~unread]]] = False
        silent &= ~self._kept
        while True:
            empty = [slot for slot in self._facts.slots if silent[self.channel[self._labels(slot)]].all()]
            if not empty:
                return silent
            for slot in empty:
                silent[self.channel[slot.start]] = False

    def without(self, groups: list[Group], pruned: list[Tensor]) -> Tensor:
        """Return the channels that go when the `pruned` units, `(n_units,)` bool a group, are removed."""
        removed = torch.zeros(self._facts.labels, dtype=torch.bool)
        starts = {(slot.name, slot.dim): slot.start for slot in self._facts.slots}
        for group, units in zip(groups, pruned, strict=True):
            member = group.members[0]
            removed[self.channel[starts[member.name, member.dim] + member.index[units].reshape(-1)]] = True
        return removed & ~self._kept

    def keep(self, removed: Tensor) -> dict[str, dict[int, Tensor]]:
        """Return, by tensor name and dimension, the positions that stay when the `removed` channels go.

        Args:
            removed: `(labels,)` bool, as `removable` returns it.
        """
        result: dict[str, dict[int, Tensor]] = defaultdict(dict)
        for slot in self._facts.slots:
            gone = removed[self.channel[self._labels(slot)]]
            if gone.any():
                result[slot.name][slot.dim] = (~gone).nonzero().reshape(-1)
        return dict(result)

    def group_counts(self, keep: dict[str, dict[int, Tensor]]) -> dict[str, int]:
        """Return the new number of groups of every convolution that loses whole groups, by weight name."""
        return {
            name: len(keep[name][0]) // width
            for name, width in self._facts.whole_groups.items()
            if 0 in keep.get(name, {})
        }

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
        shape = self.shapes[name]
        return torch.Size([len(dims[dim]) if dim in dims else size for dim, size in enumerate(shape)]).numel()

    def zero_but_kept(self, model: nn.Module, removed: Tensor) -> dict[str, list[tuple[str, int]]]:
        """Return why filters that are zero stay, as `{reason: [(layer, number of filters), ...]}`.

        Args:
            model: The model that was traced.
            removed: The channels that go, as `removable` returns them.
        """
        tensors = stored_tensors(model)
        alive = "still reach a layer: by a bias, a batch-norm shift or another layer of their residual stream"
        result: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for slot in filter(None, map(self._slot_of, self._facts.filters)):
            weights = tensors[slot.name].detach().movedim(slot.dim, 0).flatten(1)
            channels = self.channel[self._labels(slot)]
            for channel in channels[(weights == 0).all(dim=1).cpu() & ~removed[channels]].tolist():
                result[self._reasons.get(channel, alive)][slot.name.rpartition(".")[0]] += 1
        return {reason: list(layers.items()) for reason, layers in result.items()}


def couple(model: nn.Module, example_input: ExampleInput) -> Coupling:
    """Find which channels of a model can only be removed together, and which must stay.

    Args:
        model: Any module whose `forward` takes the example input. It is not changed.
        example_input: A tensor or a tuple of tensors.

    Raises:
        InputError: If `forward` does not run on the example input or cannot be traced, or the model has no parameters.
    """
    if not stored_tensors(model):
        raise InputError(f"expected a model with parameters, got {type(model).__name__} without any")
    program = export(model, example_input)
    walk = Walk(model, program)
    for node in program.graph.nodes:
        if node.op == "call_function":
            walk.values[node] = visit(walk, node)
        elif node.op == "output":
            walk.keep_inputs(node, "are outputs of the model")
    return Coupling(model, walk.facts)
