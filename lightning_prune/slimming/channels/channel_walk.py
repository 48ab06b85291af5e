"""What a walk over a model's graph knows so far: the labels of every tensor, and the facts collected about them."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from lightning_prune.graph import stored_tensors
from lightning_prune.slimming.channels.labels import Axis

KEPT = 0
"""The label of every channel that can never be removed."""

Role = Literal["filter", "writer", "bias", "scale", "shift", "slope", "reader", "other"]
"""What a stored tensor is to the channels along one of its dimensions.

* `"filter"`, `"writer"`: it writes them: the weight of a convolution, and of any other layer.
* `"bias"`, `"scale"`, `"shift"`, `"slope"`: it exists for them, behind the convolution, in a normalization, in a PReLU.
  Class tokens, position embeddings and the like are biases too.
* `"reader"`: it reads them: the weight of the layer behind.
* `"other"`: anything else, the running statistics of a normalization for example.
"""


@dataclass(frozen=True)
class Slot:
    """One dimension of one stored tensor, whose positions have the labels `start` to `start + size`."""

    name: str
    dim: int
    start: int
    size: int

    @property
    def labels(self) -> slice:
        """The labels of its positions."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True, eq=False)
class Site:
    """A call to which the code of a module may tell sizes: by constants, by attributes, or by what it reads off shapes.

    Args:
        node: The call.
        counted: The labels that each size counts, `(..., old size)`; where there are several such lines, each that is
            not gone as a whole has the same number left.
    """

    node: Node
    counted: tuple[Tensor, ...]


@dataclass(eq=False)
class Facts:
    """What a walk collects, in labels as they were given out; `coupling.py` draws the conclusions.

    Args:
        slots: Where the labels of stored tensors lie.
        labels: Number of labels given out.
        edges: Pairs of labels that are one channel.
        kept: Labels that can never be removed, and why.
        consumed: Labels that a layer sums over, with True where they add nothing to the sum, and the layer.
        owned: A channel's labels, those of a parameter that exists for it, and what that parameter is to it.
        readers: Input channels of the weights of layers, as these read them.
        filters: Output channels of convolutions and linear layers.
        costs: Stored weights of convolutions and linear layers, with how often each is multiplied for one input.
        whole_groups: Weights of convolutions and group norms that lose whole groups, with their positions a group.
        gathers: Index buffers that say which input channel each output channel reads: the labels of the input, by name.
        activations: Outputs of activation functions, each with the channels on one of its dimensions.
        splits: Channels that a reshape has put along several dimensions, of which only one can lose positions.
        sites: Where the code says sizes that may have to change.
        unread: Parameters that the traced code does not read.
        unfollowed: Layers whose weight is made by operators that cannot be followed: module, channels and why.
    """

    slots: list[Slot] = field(default_factory=list)
    labels: int = KEPT + 1
    edges: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    kept: list[tuple[Tensor, str]] = field(default_factory=list)
    consumed: list[tuple[Tensor, Tensor, Node]] = field(default_factory=list)
    owned: list[tuple[Tensor, Tensor, Role]] = field(default_factory=list)
    readers: list[Tensor] = field(default_factory=list)
    filters: list[Tensor] = field(default_factory=list)
    costs: list[tuple[str, int]] = field(default_factory=list)
    whole_groups: dict[str, int] = field(default_factory=dict)
    gathers: dict[str, Tensor] = field(default_factory=dict)
    activations: list[tuple[Node, Axis]] = field(default_factory=list)
    splits: list[Tensor] = field(default_factory=list)
    sites: list["Site"] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unfollowed: list[tuple[str, int, str]] = field(default_factory=list)

    def fresh(self, count: int) -> Tensor:
        """Return `(count,)` labels that nothing else has."""
        self.labels += count
        return torch.arange(self.labels - count, self.labels)

    def slot_of(self, labels: Tensor) -> Slot | None:
        """Return the slot in which all `labels` lie, None if there is none."""
        before = bisect_right(self.slots, int(labels.min()), key=lambda slot: slot.start)
        slot = self.slots[before - 1] if before else None
        return slot if slot is not None and int(labels.max()) < slot.labels.stop else None

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Record that two sets of labels, of shapes that broadcast, are the same channels position by position."""
        shape = torch.broadcast_shapes(left.shape, right.shape)  # type: ignore[no-untyped-call]
        self.edges.append((left.expand(shape).reshape(-1), right.expand(shape).reshape(-1)))

    def keep(self, labels: Tensor, reason: str) -> None:
        """Record that channels can never be removed, and why."""
        self.kept.append((labels, reason))

    def own(self, owner: Tensor, parameter: Axis, role: Role) -> None:
        """Record that `parameter` has one entry for each channel of `owner`, as its `role`."""
        self.unite(owner, parameter.labels)
        self.owned.append((owner, parameter.labels, role))


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
        first_name = {id(tensor): name for name, tensor in stored_tensors(model).items()}
        aliases = stored_tensors(model, duplicates=True)
        specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        labelled: dict[str, list[Axis]] = {}
        for node in program.graph.find_nodes(op="placeholder"):
            spec = specs[node.name]
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in aliases:
                name = first_name[id(aliases[spec.target])]
                if name not in labelled:
                    labelled[name] = self._label(name)
                self.values[node], self.names[node] = labelled[name], name
        self._varying: set[Node] = set()
        for node in program.graph.nodes:
            given = (
                node.op == "placeholder" and node not in self.names and specs[node.name].kind is InputKind.USER_INPUT
            )
            if given or not self._varying.isdisjoint(node.all_input_nodes):
                self._varying.add(node)
        read = {name for node, name in self.names.items() if node.users}
        self.facts.unread = [name for name, _ in model.named_parameters() if name not in read]

    def _label(self, name: str) -> list[Axis]:
        """Give each position of each dimension of a stored tensor a label of its own."""
        tensor = self.tensors[name]
        axes = []
        for dim, size in enumerate(tensor.shape):
            if size <= 1:
                continue
            others = [other for other in range(tensor.ndim) if other != dim]
            zero = ~(tensor.any(dim=others) if others else tensor.bool()).cpu()
            self.facts.slots.append(Slot(name, dim, self.facts.labels, size))
            axes.append(Axis(dim - tensor.ndim, self.facts.fresh(size), zero))
        return axes

    def origin(self, node: Node) -> str | None:
        """Return the name of the stored tensor that a node is, or is made of alone, as a parametrized weight is."""
        while node not in self.names and len(node.all_input_nodes) == 1:
            node = node.all_input_nodes[0]
        return self.names.get(node)

    def is_constant(self, node: Node) -> bool:
        """Return whether a node's values are the same for all inputs of the model."""
        return node not in self._varying

    def shape(self, node: Node) -> torch.Size:
        """Return the shape that a node's tensor has for the example input."""
        shape: torch.Size = node.meta["val"].shape
        return shape

    def axes(self, node: object) -> list[Axis]:
        """Return the axes of a node; none for a number, a missing argument or an operator with several outputs."""
        value = self.values.get(node) if isinstance(node, Node) else None
        return value if isinstance(value, list) and all(isinstance(axis, Axis) for axis in value) else []

    def channels(self, node: object, dim: int) -> Axis | None:
        """Return the channels of a node along `dim`, None if it has none; what varies along others too becomes one."""
        if not isinstance(node, Node):
            return None
        dim = dim if dim < 0 else dim - len(self.shape(node))
        found = next((axis for axis in self.axes(node) if dim in axis.dims), None)
        return found and self.united(found, [other for other in found.dims if other != dim])

    def united(self, axis: Axis, dims: Iterable[int]) -> Axis | None:
        """Make the channels along some dimensions one; return those that vary along the others, None if none do."""
        labels, zero = axis.spread
        for dim in set(dims) & set(axis.dims):
            first = labels.narrow(dim, 0, 1)
            self.facts.unite(labels, first)
            labels, zero = first, zero.all(dim=dim, keepdim=True)
        return self.placed(labels, zero)

    def placed(self, labels: Tensor, zero: Tensor) -> Axis | None:
        """Return the channels whose labels broadcast over a tensor; a single one is kept, and followed no further."""
        axis = Axis.of(labels, zero)
        if axis is None:
            self.facts.keep(labels.reshape(-1), "are one with all others of a tensor")
        return axis

    def only(self, node: Node, dim: int) -> Axis | None:
        """Return the channels of a node along `dim`, if any; keep those that lie on its other dimensions."""
        for axis in self.axes(node):
            if dim not in axis.dims and dim - len(self.shape(node)) not in axis.dims:
                self.facts.keep(axis.labels, f"lie on another dimension than the channels that {node.name} mixes")
        return self.channels(node, dim)

    def site(self, node: Node, *counted: Tensor) -> None:
        """Note a call to which the code may tell the number of these channels."""
        self.facts.sites.append(Site(node, counted))

    def keep_inputs(self, node: Node, reason: str | None = None) -> list[Axis]:
        """Keep every channel that enters `node`; return the axes of an output about which nothing is known."""
        for source in node.all_input_nodes:
            values = self.values.get(source, [])
            for axis in values if isinstance(values, list) else []:
                for part in axis if isinstance(axis, list) else [axis]:
                    self.facts.keep(part.labels, reason or f"enter {node.target}")
        return []
