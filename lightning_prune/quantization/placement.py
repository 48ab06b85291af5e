"""Where a network is quantized: its layers, and the tensors between them, found in its traced graph.

What is rounded follows the kernels that integer inference runs (Jacob et al. 2018, section 3, and onnxruntime's): a
layer with the batch norm and the activation function behind it is one, so that its output is rounded behind these; so
are sums, concatenations and averages. Everything that a layer, a sum or a concatenation reads is rounded too.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import takewhile

from torch import nn
from torch.fx import Node

from lightning_prune.graph import ExampleInput, called
from lightning_prune.quantization.layer_names import LAYERS, named_layers, weight_name
from lightning_prune.quantization.named_graph import NamedGraph, named_graph
from lightning_prune.quantization.quantized_calls import BatchNormCall, LayerCall, QuantizerPlacement, RoundedTensor
from lightning_prune.quantization.traced_values import (
    JOINS,
    POOLS,
    batch_norm_behind,
    kernel_output,
    not_negative,
    origin,
    relus_before,
)

Choice = Callable[[list[str]], Collection[str]]
"""From the names of a network's layers, in the order in which they run, to those that are quantized."""


def place(model: nn.Module, example_input: ExampleInput, choose: Choice) -> QuantizerPlacement:
    """Find where a network is quantized.

    Args:
        model: Its `forward` is what is traced; it is not changed.
        example_input: What that takes.
        choose: Says which layers are.

    Raises:
        InputError: If it cannot be traced.
    """
    graph = named_graph(model, example_input)
    named, left = named_layers(graph)
    chosen = choose(list(named.values()))
    layers = {node: name for node, name in named.items() if name in chosen}
    ranges = _Ranges(graph)
    for node in graph.flow.order:
        ranges.round(node, node in layers)
    calls = [_layer_call(graph, node, name, ranges) for node, name in layers.items()]
    found = QuantizerPlacement(calls, _rounded_tensors(graph, ranges), left)
    return replace(found, part=_part(found.calls(), graph.runs), counts=_counts(found.calls(), graph.counts))


def _part(calls: Collection[str], runs: Mapping[str, int]) -> str:
    """Return the path of the smallest module that runs once, and makes all calls."""
    paths = [call.partition("/")[0].split(".") for call in calls]
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    shared = [level[0] for level in levels]
    while shared and runs.get(".".join(shared)) != 1:
        shared.pop()
    return ".".join(shared)


def _counts(calls: Collection[str], counts: Mapping[str, int]) -> dict[str, int]:
    """Return how often the functions are called of which some calls matter."""
    return {of_function: counts[of_function] for of_function in {call.rpartition("/")[0] for call in calls}}


class _Ranges:
    """Which tensors are rounded, and which of them with one range.

    Args:
        graph: A graph, of which each operator is to be shown to `round` in turn.
    """

    def __init__(self, graph: NamedGraph) -> None:
        self.graph = graph
        self.first: dict[Node, Node] = {}
        """Tensors that are rounded, each with the first of those that share its range."""

    def origin(self, node: Node) -> Node:
        """Return the tensor whose numbers a tensor's are, the rounded one if there is such."""
        return origin(self.graph, node, self.first)

    def round(self, node: Node, chosen: bool) -> None:
        """Let what an operator reads and what it computes be rounded, if it is one that runs in integers."""
        graph, kind = self.graph, called(node)
        sources = graph.sources(node) if kind in JOINS else []
        if kind in LAYERS and chosen:
            self._rounded(graph.read(node))
            end = kernel_output(graph, node, norm=True)
            # Logits may be float: a linear layer runs in integers all the same.
            if kind != "linear" or not all(map(_takes_logits, graph.readers[end])):
                self._add(end)
        elif kind in POOLS and self.origin(graph.read(node)) in self.first:
            self._add(kernel_output(graph, node, norm=False))
        elif len(sources) > 1 and self._joins(sources):
            firsts = [self._rounded(source) for source in sources]
            if kind != "cat":
                self._add(kernel_output(graph, node, norm=False))
            elif node in graph.call:
                self._share([*firsts, node])

    def _joins(self, sources: list[Node]) -> bool:
        """Return whether tensors meet that can all be rounded, some of which are."""
        origins = [self.origin(source) for source in sources]
        reachable = all(each in self.first or self._reachable(each) for each in origins)
        return reachable and any(each in self.first for each in origins)

    def _reachable(self, node: Node) -> bool:
        return node in self.graph.call and node not in self.graph.stored

    def _rounded(self, node: Node) -> Node:
        """Let what an operator reads be rounded where it is made; return that."""
        made = self.origin(node)
        if made not in self.first and self._reachable(made):
            self._add(kernel_output(self.graph, made, norm=False))
        return self.origin(node)

    def _add(self, node: Node) -> None:
        if node in self.graph.call:
            self.first.setdefault(node, node)

    def _share(self, nodes: list[Node]) -> None:
        """Give tensors one range."""
        firsts = {self.first[node] for node in nodes if node in self.first}
        first = min(firsts | {nodes[0]}, key=self.graph.flow.order.__getitem__)
        self.first.update({node: first for node, old in self.first.items() if old in firsts})
        self.first.update(dict.fromkeys(nodes, first))


def _takes_logits(node: Node) -> bool:
    """Return whether a node is an output of the network, or makes probabilities of what will be one."""
    return node.op == "output" or called(node) in ("softmax", "log_softmax")


def _layer_call(graph: NamedGraph, node: Node, name: str, ranges: _Ranges) -> LayerCall:
    source = graph.read(node)
    made, norm, weight = ranges.origin(source), batch_norm_behind(graph, node), weight_name(graph, node)
    assert weight is not None
    return LayerCall(
        name=name,
        call=graph.call[node],
        weight=weight,
        bias=graph.stored.get(graph.flow.arguments[node]["bias"]),
        axis=int(called(node).startswith("conv_transpose")),
        norm=None if norm is None else _batch_norm_call(graph, norm),
        reads=graph.call[ranges.first[made]] if made in ranges.first else None,
        signed=not not_negative(graph, source),
        relus=relus_before(graph, source),
    )


def _batch_norm_call(graph: NamedGraph, node: Node) -> BatchNormCall:
    arguments = graph.flow.arguments[node]
    names = [graph.stored.get(arguments[key]) for key in ("weight", "bias", "running_mean", "running_var")]
    weight, bias, mean, variance = names
    assert mean is not None
    assert variance is not None
    return BatchNormCall(graph.call[node], weight, bias, mean, variance, arguments["eps"])


def _rounded_tensors(graph: NamedGraph, ranges: _Ranges) -> list[RoundedTensor]:
    sharing: dict[Node, list[Node]] = {}
    for node, first in ranges.first.items():
        sharing.setdefault(first, []).append(node)
    pools = [node for node in graph.flow.order if called(node).startswith("max_pool") and node in graph.call]
    found = []
    for first, nodes in sharing.items():
        again = [node for node in nodes if called(node) == "cat"]
        calls = [graph.call[node] for node in nodes if node not in again]
        again += [node for node in pools if ranges.origin(node) in nodes]
        signed = not all(not_negative(graph, node) for node in nodes)
        again_calls = tuple(graph.call[node] for node in again)
        found.append(RoundedTensor(graph.call[first], tuple(calls), again_calls, signed))
    return found
