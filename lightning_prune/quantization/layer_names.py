"""Which calls of a network are its layers, and what these are called."""

from collections.abc import Collection

from torch import Tensor
from torch.fx import Node

from lightning_prune.graph import Kind, called, module_path, operators
from lightning_prune.quantization.named_graph import NamedGraph

LAYERS = operators(Kind.LAYER)
"""The operators, and the functions of torch of the same names, that are layers."""


def named_layers(graph: NamedGraph) -> tuple[dict[Node, str], dict[str, str]]:
    """Return the names of the layers that can be quantized, and, by name, why the others cannot."""
    named: dict[Node, str] = {}
    left: dict[str, str] = {}
    for node in graph.flow.order:
        if called(node) in LAYERS:
            name, reason = _name(graph, node, set(named.values()))
            if reason is None:
                named[node] = name
            else:
                left[name] = reason
    return named, left


def weight_name(graph: NamedGraph, node: Node) -> str | None:
    """Return the name of a layer's weight: a stored tensor, or that of its module, made from stored ones."""
    source = graph.flow.arguments[node]["weight"]
    if source in graph.stored:
        return graph.stored[source]
    path = graph.call[node].partition("/")[0]
    module = graph.model.get_submodule(path)
    return f"{path}.weight" if isinstance(getattr(module, "weight", None), Tensor) else None


def _name(graph: NamedGraph, node: Node, taken: Collection[str]) -> tuple[str, str | None]:
    """Return the name of a layer and why it cannot be quantized, if so."""
    call = graph.call.get(node)
    function = (call or "").partition("/")[2].partition("/")[0]
    if call is None or function not in LAYERS:
        module = (module_path(node) or [""])[-1]
        return module, f"it is computed within {function or 'other code'}"
    weight, bias = weight_name(graph, node), graph.flow.arguments[node]["bias"]
    if weight is None or not (bias is None or bias in graph.stored):
        return call, f"its {'weight' if weight is None else 'bias'} is computed"
    name = weight.removesuffix(".weight")
    uses = 1 + sum(other == name or other.startswith(f"{name}#") for other in taken)
    return name if uses == 1 else f"{name}#{uses}", None
