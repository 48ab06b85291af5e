"""What a walk over a model's graph knows so far: the labels of every tensor, and the facts collected about them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from lightning_prune.axes import Axis
from lightning_prune.tracing import stored_tensors

KEPT = 0
"""The label of every channel that can never be removed."""


@dataclass(frozen=True)
class Slot:
    """One dimension of one stored tensor, whose positions have the labels `start` to `start + size`."""

    name: str
    dim: int
    start: int
    size: int


@dataclass(frozen=True, eq=False)
class Gather:
    """An index buffer that says which input channel each output channel reads.

    Args:
        name: Name of the buffer.
        source: `(input_channels,)` labels of the input.
    """

    name: str
    source: Tensor


@dataclass(eq=False)
class Facts:
    """What a walk collects, in labels as they were given out; `coupling.py` draws the conclusions.

    Args:
        slots: Where the labels of stored tensors lie.
        labels: Number of labels given out.
        edges: Pairs of labels that are one channel.
        kept: Labels that can never be removed, and why.
        consumed: Labels that a layer sums over, with True where they add nothing to the sum.
        owned: A channel's labels, and those of a parameter that exists for it (its filter, its bias, its scale).
        filters: Output channels of convolutions.
        costs: Stored weights of convolutions and linear layers, with how often each is multiplied for one input.
        whole_groups: Weights of convolutions that lose whole groups, with the number of outputs a group.
        gathers: Index buffers whose values depend on the channels removed.
    """

    slots: list[Slot] = field(default_factory=list)
    labels: int = KEPT + 1
    edges: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    kept: list[tuple[Tensor, str]] = field(default_factory=list)
    consumed: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    owned: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    filters: list[Tensor] = field(default_factory=list)
    costs: list[tuple[str, int]] = field(default_factory=list)
    whole_groups: dict[str, int] = field(default_factory=dict)
    gathers: list[Gather] = field(default_factory=list)

    def fresh(self, count: int) -> Tensor:
        """Return `(count,)` labels that nothing else has."""
        self.labels += count
        return torch.arange(self.labels - count, self.labels)

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Record that two sets of labels, of shapes that broadcast, are the same channels position by position."""
        pairs = torch.stack([part.reshape(-1) for part in torch.broadcast_tensors(left, right)]).unique(dim=1)
        self.edges.append((pairs[0], pairs[1]))

    def keep(self, labels: Tensor, reason: str) -> None:
        """Record that channels can never be removed, and why."""
        self.kept.append((labels.unique(), reason))

    def own(self, owner: Tensor, parameter: Axis | None) -> Tensor | None:
        """Record that `parameter` has one entry for each channel of `owner`; return where that entry is zero."""
        if parameter is None:
            return None
        self.unite(owner, parameter.labels)
        self.owned.append((owner, parameter.labels))
        return parameter.zero


class Walk:
    """The labels of the tensors in one exported program, and the facts that its operators state.

    Args:
        model: The model that was exported; its tensors are read for zeros, and not changed.
        program: Its graph.
    """

    def __init__(self, model: nn.Module, program: ExportedProgram) -> None:
        self.facts = Facts()
        self.values: dict[Node, Any] = {}
        self.names: dict[Node, str] = {}
        self.tensors = {name: tensor.detach() for name, tensor in stored_tensors(model).items()}
        aliases = dict(model.named_parameters(remove_duplicate=False))
        aliases.update(model.named_buffers(remove_duplicate=False))
        first_name = {id(tensor): name for name, tensor in stored_tensors(model).items()}
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        labelled: dict[str, list[Axis]] = {}
        for node in program.graph.find_nodes(op="placeholder"):
            spec = specs[node.name]
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in aliases:
                name = first_name[id(aliases[spec.target])]
                if name not in labelled:
                    labelled[name] = self._label(name)
                self.values[node], self.names[node] = labelled[name], name

    def _label(self, name: str) -> list[Axis]:
        """Give each position of each dimension of a stored tensor a label of its own."""
        tensor = self.tensors[name]
        axes = []
        for dim, size in enumerate(tensor.shape):
            if size == 1:
                continue
            zero = (tensor.movedim(dim, 0).reshape(size, -1) == 0).all(dim=1).cpu()
            shape = [size if other == dim else 1 for other in range(tensor.ndim)]
            self.facts.slots.append(Slot(name, dim, self.facts.labels, size))
            axes.append(Axis(self.facts.fresh(size).view(shape), zero.view(shape)))
        return axes

    def shape(self, node: Node) -> torch.Size:
        """Return the shape that a node's tensor has for the example input."""
        shape: torch.Size = node.meta["val"].shape
        return shape

    def axes(self, node: object) -> list[Axis]:
        """Return the axes of a node; none for a number, a missing argument or an operator with several outputs."""
        value = self.values.get(node) if isinstance(node, Node) else None
        return value if isinstance(value, list) and all(isinstance(axis, Axis) for axis in value) else []

    def channels(self, node: object, dim: int) -> Axis | None:
        """Return the axis of a node along `dim` alone, as `(channels,)`, or None if it has none."""
        if not isinstance(node, Node):
            return None
        dims = (dim % len(self.shape(node)),)
        found = [axis for axis in self.axes(node) if axis.dims == dims]
        return Axis(found[0].labels.reshape(-1), found[0].zero.reshape(-1)) if found else None

    def along(self, node: Node, dim: int, channels: Axis) -> Axis:
        """Return `channels`, `(channels,)`, as the axis of the tensor of `node` along `dim`."""
        shape = [1] * len(self.shape(node))
        shape[dim] = -1
        return Axis(channels.labels.view(shape), channels.zero.view(shape))

    def keep_inputs(self, node: Node, reason: str) -> list[Axis]:
        """Keep every channel that enters `node`; return the axes of an output about which nothing is known."""
        for source in node.all_input_nodes:
            values = self.values.get(source, [])
            for axis in values if isinstance(values, list) else []:
                for part in axis if isinstance(axis, list) else [axis]:
                    self.facts.keep(part.labels, reason)
        return []
