"""Values in a traced graph: from which each is computed, which of them are written to, and what runs for one alone."""

import operator
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

Arguments = dict[str, Any]
"""The arguments of an operator by their names in its schema."""


def called(node: Node) -> str:
    """Return the name of a node's operator, the same for one that writes in place; of Python's own that of `getitem`.

    >>> graph = torch.fx.Graph()
    >>> called(graph.call_function(torch.ops.aten.relu_.default, (graph.placeholder("x"),)))
    'relu'
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        return "getitem" if node.target is operator.getitem else ""
    name = node.target._schema.name.removeprefix("aten::")
    return name.removesuffix("_") if node.target._schema.is_mutable else name


def arguments_of(node: Node) -> Arguments:
    """Return the arguments of a node's operator, an ATen one, by their names in its schema."""
    assert isinstance(node.target, torch._ops.OpOverload)
    arguments = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    arguments.update(zip(arguments, node.args, strict=False))
    arguments.update(node.kwargs)
    return arguments


def module_path(node: Node) -> list[str]:
    """Return the names of the modules that run an operator, the outermost first."""
    return [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]


def written_by(node: Node) -> list[Node]:
    """Return the tensors into which a node's operator writes: the one that it changes in place, or is told as `out`."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    given = arguments_of(node)
    keys = [key.name for key in node.target._schema.arguments if key.alias_info is not None and key.alias_info.is_write]
    return [source for key in keys for source in nodes_in(given[key])]


def nodes_in(value: Any) -> list[Node]:
    """Return the nodes in an argument of an operator, those in lists too, in order.

    >>> x = torch.fx.Graph().placeholder("x")
    >>> nodes_in([x, None, (2, x)])
    [x, x]
    """
    if isinstance(value, list | tuple):
        return [node for part in value for node in nodes_in(part)]
    return [value] if isinstance(value, Node) else []


class Dataflow:
    """Which value of a graph is computed from which, with writes in place followed, and without dead code.

    Args:
        graph: A traced graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.arguments: dict[Node, Arguments] = {}
        """The arguments of each call, where a tensor that was written to stands for what was written."""
        self.inputs: dict[Node, list[Node]] = {}
        self.overwritten: dict[Node, list[Node]] = {}
        """By a call that writes in place, the tensors that lie in the memory it writes to, all of it or in part."""
        self.users: dict[Node, set[Node]] = defaultdict(set)
        self.calls: dict[str, set[Node]] = defaultdict(set)
        """The operators that each module runs, by its name."""
        self._follow()
        self.order = {node: number for number, node in enumerate(self._live())}
        for node in self.order:
            for source in self.inputs[node]:
                self.users[source].add(node)
            for name in module_path(node):
                self.calls[name].add(node)

    def _follow(self) -> None:
        newest: dict[Node, Node] = {}
        memory: dict[Node, list[Node]] = {}  # the nodes that look at the same memory
        for node in self.graph.nodes:
            now = {source: newest.get(source, source) for source in node.all_input_nodes}
            self.inputs[node] = list(dict.fromkeys(now.values()))
            memory[node] = [node]
            if node.op != "call_function":
                continue
            aten = isinstance(node.target, torch._ops.OpOverload)
            arguments = arguments_of(node) if aten else {str(i): value for i, value in enumerate(node.args)}
            self.arguments[node] = map_arg(arguments, lambda source, now=now: now[source])  # type: ignore[misc]
            written = written_by(node)
            if written:
                self.overwritten[node] = [each for source in written for each in memory[source]]
                newest.update(dict.fromkeys(self.overwritten[node], node))
            for base in written or _looks_at(node):
                memory[node] = memory[base]
                memory[base].append(node)

    def _live(self) -> list[Node]:
        """Return the nodes that an output needs, in the order of execution."""
        needed = self.ancestors(node for node in self.graph.nodes if node.op == "output")
        return [node for node in self.graph.nodes if node in needed]

    def ancestors(self, nodes: Iterable[Node]) -> set[Node]:
        """Return `nodes` and all from which they are computed."""
        found: set[Node] = set()
        left = list(nodes)
        while left:
            node = left.pop()
            if node not in found:
                found.add(node)
                left += self.inputs[node]
        return found

    def region(self, value: Node, user: Node) -> frozenset[Node]:
        """Return the operators that run for `value` alone, with itself; none if it is used by others than `user`."""
        inside: set[Node] = set()
        left = [value] if value.op == "call_function" and self.users[value] == {user} else []
        while left:
            node = left.pop()
            inside.add(node)
            left += [
                source for source in self.inputs[node] if source.op == "call_function" and self.users[source] <= inside
            ]
        return frozenset(inside)

    def entries(self, region: frozenset[Node], value: Node) -> set[Node]:
        """Return what a region reads from outside; `value` itself if its region is empty."""
        return {source for node in region for source in self.inputs[node]} - region if region else {value}


def _looks_at(node: Node) -> list[Node]:
    """Return the tensor into whose memory the result of a node is another look, in a list; none for new memory."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return nodes_in(node.args[:1]) if called(node) == "getitem" else []
    aliases = any(value.alias_info is not None for value in node.target._schema.returns)
    return nodes_in(node.args[:1]) if aliases else []
