"""The traced graph of a network in which the calls of functions have left their names."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from lightning_prune.graph import Dataflow, ExampleInput, Function, Interceptor, called, trace

_MARK = "lightning_prune::call"


@torch.library.custom_op(_MARK, mutates_args=())
def _mark(x: Tensor, name: str) -> Tensor:
    return x.clone()


@_mark.register_fake
def _(x: Tensor, name: str) -> Tensor:
    return torch.empty_like(x)


class _Marking(Interceptor):
    """Leaves each call's name in the graph that is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: Counter[str] = Counter()
        """How often each submodule has run, by its path."""
        self.counts: Mapping[str, int] = {}
        """How often each function was called, by the path of the module and its name."""

    def enter(self, path: str) -> None:
        super().enter(path)
        self.runs[path] += 1

    def finish(self, counts: Mapping[str, int]) -> None:
        self.counts = counts

    def call(self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = function(*args, **kwargs)
        return _mark(output, name) if isinstance(output, Tensor) and output.is_floating_point() else output


class NamedGraph:
    """A traced graph, the calls that left their names in it, and what was counted on the way.

    Args:
        model: What was traced.
        program: With an operator behind each call that tells its name.
        runs: How often each submodule has run, by its path.
        counts: How often each function was called, by the path of the module and its name.
    """

    def __init__(
        self, model: nn.Module, program: ExportedProgram, runs: Mapping[str, int], counts: Mapping[str, int]
    ) -> None:
        self.model, self.runs, self.counts = model, runs, counts
        self.flow = Dataflow(program.graph)
        specs = program.graph_signature.input_specs
        stored = {spec.arg.name: spec.target for spec in specs if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)}
        placeholders = program.graph.find_nodes(op="placeholder")
        self.stored: dict[Node, str] = {node: stored[node.name] for node in placeholders if node.name in stored}
        """The stored name of each parameter and buffer."""
        self.call: dict[Node, str] = {}
        """The name of the call that made a tensor, by its node."""
        self.readers: dict[Node, list[Node]] = {}
        """What reads a tensor, as the call returned it."""
        for node in self.flow.order:
            if called(node) != _MARK:
                self.readers[node] = [reader for user in self._users(node) for reader in self._behind(user)]
            else:
                # Of several calls the first: the others have returned the tensor that they got.
                self.call.setdefault(self._tensor(node), node.args[1])  # type: ignore[arg-type]

    def _users(self, node: Node) -> list[Node]:
        return sorted(self.flow.users[node], key=self.flow.order.__getitem__)

    def _behind(self, node: Node) -> list[Node]:
        """Return the operators that read a node, which are behind it if it is only the name of a call."""
        if called(node) != _MARK:
            return [node]
        return [reader for user in self._users(node) for reader in self._behind(user)]

    def read(self, node: Node) -> Node:
        """Return what an operator reads first, the tensor and not the name of the call that made it."""
        return self._tensor(next(iter(self.flow.arguments[node].values())))

    def sources(self, node: Node) -> list[Node]:
        """Return all that an operator reads, the tensors and not the names of the calls that made them."""
        return [self._tensor(source) for source in self.flow.inputs[node]]

    def _tensor(self, node: Node) -> Node:
        while called(node) == _MARK:
            node = self.flow.inputs[node][0]
        return node


def named_graph(model: nn.Module, example_input: ExampleInput) -> NamedGraph:
    """Return the graph of a model in which each call of a function has left its name.

    Raises:
        InputError: If it cannot be traced.
    """
    marking = _Marking()
    marking.attach(model)
    try:
        program = trace(model, example_input)
    finally:
        marking.detach()
    return NamedGraph(model, program, marking.runs, marking.counts)
