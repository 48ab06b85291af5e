"""Values in a traced graph: from which each is computed, what is computed for one alone, and by which modules."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

Arguments = dict[str, Any]
"""The arguments of an operator by their names in its schema."""


def called(node: Node) -> str:
    """Return the name of a node's operator, the same for one that writes in place.

    >>> graph = torch.fx.Graph()
    >>> called(graph.call_function(torch.ops.aten.relu_.default, (graph.placeholder("x"),)))
    'relu'
    """
    if not isinstance(node.target, torch._ops.OpOverload):
        return getattr(node.target, "__name__", "")
    name = node.target._schema.name.removeprefix("aten::")
    return name.removesuffix("_") if node.target._schema.is_mutable else name


def arguments_of(node: Node) -> Arguments:
    """Return the arguments of a node's operator, an ATen one, by their names in its schema."""
    schema = node.target._schema  # type: ignore[union-attr]
    arguments = {argument.name: argument.default_value for argument in schema.arguments}
    arguments.update(zip(arguments, node.args, strict=False))
    arguments.update(node.kwargs)
    return arguments


def is_view(node: Node) -> bool:
    """Return whether a node gives another look at the memory of its first argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return called(node) == "getitem"
    return not schema.is_mutable and any(value.alias_info is not None for value in schema.returns)


def module_path(node: Node) -> list[str]:
    """Return the names of the modules that run an operator, the outermost first."""
    return [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]


class Flow:
    """Which value of a graph is computed from which, with writes in place followed, and without dead code.

    Args:
        graph: A traced graph.
    """

    def __init__(self, graph: Graph) -> None:
        self.arguments: dict[Node, Arguments] = {}
        """The arguments of each call, where a tensor that was written to stands for what was written."""
        self.inputs: dict[Node, list[Node]] = {}
        self.users: dict[Node, set[Node]] = defaultdict(set)
        self.calls: dict[str, set[Node]] = defaultdict(set)
        """The operators that each module runs, by its name."""
        self._follow(graph)
        self.order = {node: number for number, node in enumerate(self._live(graph))}
        for node in self.order:
            for source in self.inputs[node]:
                self.users[source].add(node)
            for name in self.paths(node):
                self.calls[name].add(node)

    def _follow(self, graph: Graph) -> None:
        written: dict[Node, Node] = {}
        memory: dict[Node, list[Node]] = {}  # the nodes that look at the same memory
        for node in graph.nodes:
            now = {source: written.get(source, source) for source in node.all_input_nodes}
            self.inputs[node] = list(dict.fromkeys(now.values()))
            memory[node] = [node]
            if node.op != "call_function":
                continue
            aten = isinstance(node.target, torch._ops.OpOverload)
            arguments = arguments_of(node) if aten else {"input": node.args[0], "index": node.args[1:]}
            self.arguments[node] = map_arg(arguments, lambda source, now=now: now[source])  # type: ignore[misc]
            writes = aten and node.target._schema.is_mutable
            if writes or is_view(node):
                memory[node] = memory[node.args[0]]
                memory[node].append(node)
            if writes:
                written.update(dict.fromkeys(memory[node], node))

    def _live(self, graph: Graph) -> list[Node]:
        """Return the nodes that an output needs, in the order of execution."""
        needed = self.ancestors(node for node in graph.nodes if node.op == "output")
        return [node for node in graph.nodes if node in needed]

    def paths(self, node: Node) -> list[str]:
        """Return the names of the modules that run an operator, the outermost first."""
        return module_path(node)

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
