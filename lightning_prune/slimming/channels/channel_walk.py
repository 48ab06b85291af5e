"""One walk over a model's graph: the labels of the channels of every tensor, as far as it has come."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from lightning_prune.graph import Dataflow, stored_tensors, written_by
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.facts import Facts, SizedCall, Slot


class NotFollowed(Exception):
    """A rule's refusal of a call that it was not made for, an overload or a shape: all channels that enter it stay.

    Args:
        reason: Why they have to stay; that they enter this operator by default.
    """

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


class ChannelWalk:
    """The labels of the tensors in one exported program, and the facts that its operators state.

    Args:
        model: The model that was exported; its tensors are read for zeros, and not changed.
        program: Its graph.

    Attributes:
        flow: Its graph, and which memory is written to.
        facts: What has been found.
        values: The axes of each node's tensor as it is now; a list of such for an operator with several outputs.
        names: The name of the stored tensor that a node is, or is a copy of.
        tensors: The stored tensors by name.
    """

    def __init__(self, model: nn.Module, program: ExportedProgram) -> None:
        self.flow = Dataflow(program.graph)
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
                self._varying.update([node, *self.flow.overwritten.get(node, ())])
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
        """Make the channels along some dimensions one; return those that vary along the others, None if none do.

        Args:
            axis: Channels.
            dims: Dimensions, counted from the last, which is -1; those along which they do not vary change nothing.
        """
        labels, zero = axis.spread
        for dim in set(dims) & set(axis.dims):
            first = labels.narrow(dim, 0, 1)
            self.facts.unite(labels, first)
            labels, zero = first, zero.all(dim=dim, keepdim=True)
        return self.placed(labels, zero)

    def placed(self, labels: Tensor, zero: Tensor) -> Axis | None:
        """Return the channels whose labels broadcast over a tensor; a single one is kept, and followed no further.

        Args:
            labels: int64, of the tensor's rank or less, with size 1 on every dimension along which they do not vary.
            zero: bool of the same shape.
        """
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

    def sized(self, node: Node, *counted: Tensor) -> None:
        """Note a call to which the code may tell how many channels these are, `(..., old size)` labels each."""
        self.facts.sized_calls.append(SizedCall(node, counted))

    def give(self, node: Node, value: Any) -> None:
        """Note the axes of what a call gives, and what it has left in the tensors whose memory it writes to."""
        self.values[node] = value
        written = written_by(node)
        still_zero = all(_is_zero_in(axis, value) for tensor in written for axis in self.axes(tensor))
        for tensor in self.flow.overwritten.get(node, ()):
            if tensor in written:
                self.values[tensor] = value
            elif not still_zero:
                self.values[tensor] = _alive(self.values.get(tensor, []))

    def keep_inputs(self, node: Node, reason: str | None = None) -> list[Axis]:
        """Keep every channel that enters `node`; return the axes of an output about which nothing is known."""
        for source in node.all_input_nodes:
            values = self.values.get(source, [])
            for axis in values if isinstance(values, list) else []:
                for part in axis if isinstance(axis, list) else [axis]:
                    self.facts.keep(part.labels, reason or f"enter {node.target}")
        return []


def _is_zero_in(axis: Axis, value: list[Axis]) -> bool:
    """Return whether all that is zero along an axis of a tensor is still zero in the one that takes its place."""
    lost = axis.spread[1]
    for other in value:
        if other.dim == axis.dim:
            lost = lost & ~other.spread[1]
    return not lost.any()


def _alive(value: list[Any]) -> list[Any]:
    """Return axes, or lists of such, of which nothing is known to be zero."""
    return [
        Axis(each.dim, each.labels, torch.zeros_like(each.zero)) if isinstance(each, Axis) else _alive(each)
        for each in value
    ]
