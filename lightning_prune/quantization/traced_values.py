"""How numbers flow between layers: from which tensor they are, whether they can be negative, what one kernel computes.

A layer with the batch norm and the activation function behind it is one kernel, and so is a sum or an average with the
activation function behind it (Jacob et al. 2018, section 3, and onnxruntime).
"""

from collections.abc import Collection

from torch.fx import Node

from lightning_prune.graph import Kind, called, is_kind
from lightning_prune.quantization.named_graph import NamedGraph

ACTIVATIONS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean")
JOINS = ("add", "mul", "cat")


def origin(graph: NamedGraph, node: Node, rounded: Collection[Node]) -> Node:
    """Return the tensor whose numbers a tensor's are: the last of `rounded` on the way back, else the first of all."""
    while is_kind(node, Kind.SAME_NUMBERS) and node not in rounded:
        node = graph.read(node)
    return node


def not_negative(graph: NamedGraph, node: Node) -> bool:
    """Return whether the numbers of a tensor are known to be zero or more."""
    if is_kind(node, Kind.NOT_NEGATIVE):
        return True
    kind = called(node)
    arguments = graph.flow.arguments.get(node, {})
    if kind in ("hardtanh", "clamp", "clamp_min"):
        least = arguments.get("min_val", arguments.get("min"))
        return isinstance(least, int | float) and least >= 0
    if kind in POOLS or is_kind(node, Kind.SAME_NUMBERS):
        return not_negative(graph, graph.read(node))
    if kind in JOINS:
        return all(not_negative(graph, source) for source in graph.sources(node))
    return False


def batch_norm_behind(graph: NamedGraph, node: Node) -> Node | None:
    """Return the batch norm with running statistics that alone reads a tensor; None if there is none."""
    following = _only_call_behind(graph, node)
    if following is None or called(following) != "batch_norm":
        return None
    return None if graph.flow.arguments[following]["running_mean"] is None else following


def kernel_output(graph: NamedGraph, node: Node, norm: bool) -> Node:
    """Return the last tensor of what one kernel computes: `node`, its batch norm if `norm`, its activation function."""
    folded = batch_norm_behind(graph, node) if norm else None
    last = node if folded is None else folded
    following = _only_call_behind(graph, last)
    if following is None or called(following) not in ACTIVATIONS or not not_negative(graph, following):
        return last
    return following


def relus_before(graph: NamedGraph, node: Node) -> tuple[str, ...]:
    """Return the calls of the activation functions right in front of what reads a tensor."""
    node = origin(graph, node, ())
    return (graph.call[node],) if called(node) in ACTIVATIONS and node in graph.call else ()


def _only_call_behind(graph: NamedGraph, node: Node) -> Node | None:
    """Return the call that alone reads a tensor; None if there are others, or it has no name."""
    behind = graph.readers[node]
    return behind[0] if len(behind) == 1 and behind[0] in graph.call else None
