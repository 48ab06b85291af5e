"""Where a network is quantized: its layers, and the tensors between them, found in its traced graph.

What is rounded follows the kernels that integer inference runs (Jacob et al. 2018, section 3, and onnxruntime's): a
layer with the batch norm and the activation function behind it is one, so that its output is rounded behind these; so
are sums, concatenations and averages. Everything that a layer, a sum or a concatenation reads is rounded too.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from lightning_prune.graph import (
    Dataflow,
    ExampleInput,
    Function,
    Interceptor,
    Kind,
    called,
    export,
    is_kind,
    module_path,
)
from lightning_prune.quantization.rounding_sites import BatchNorm, LayerSite, Placement, Tensors

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, "linear")
"""The operators, and the functions of torch of the same names, that are layers."""

_ACTIVATIONS = ("relu", "relu6", "hardtanh", "clamp", "clamp_min")
_POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean")
_JOINS = ("add", "mul", "cat")
_NOT_NEGATIVE = ("relu", "relu6", "sigmoid", "softmax", "hardsigmoid")


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


def traced(model: nn.Module, example_input: ExampleInput) -> tuple[ExportedProgram, _Marking]:
    """Return the graph of a model in which each call of a function has left its name, and what was counted.

    Raises:
        InputError: If it cannot be traced.
    """
    marking = _Marking()
    marking.attach(model)
    try:
        return export(model, example_input), marking
    finally:
        marking.detach()


Choice = Callable[[list[str]], Collection[str]]
"""From the names of a network's layers, in the order in which they run, to those that are quantized."""


def place(model: nn.Module, example_input: ExampleInput, choose: Choice) -> Placement:
    """Find where a network is quantized.

    Args:
        model: Its `forward` is what is traced; it is not changed.
        example_input: What that takes.
        choose: Says which layers are.

    Raises:
        InputError: If it cannot be traced.
    """
    program, marking = traced(model, example_input)
    found = _Graph(model, program).placement(choose)
    return replace(found, part=_part(found.calls(), marking.runs), counts=_counts(found.calls(), marking.counts))


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


class _Graph:
    """A traced graph and the calls that left their names in it."""

    def __init__(self, model: nn.Module, program: ExportedProgram) -> None:
        self.model = model
        self.flow = Dataflow(program.graph)
        specs = program.graph_signature.input_specs
        stored = {spec.arg.name: spec.target for spec in specs if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)}
        placeholders = program.graph.find_nodes(op="placeholder")
        self.stored: dict[Node, str] = {node: stored[node.name] for node in placeholders if node.name in stored}
        """The stored name of each parameter and buffer."""
        self.call: dict[Node, str] = {}
        """The name of the call that made a tensor, by its node."""
        self.after: dict[Node, list[Node]] = {}
        """What reads a tensor, as the call returned it."""
        for node in self.flow.order:
            if called(node) != _MARK:
                self.after[node] = [reader for user in self._users(node) for reader in self._behind(user)]
            else:
                self.call[self.flow.inputs[node][0]] = node.args[1]  # type: ignore[assignment]
        self.sites: dict[Node, Node] = {}
        """Tensors that are rounded, each with the first of those that share its range."""
        self.norms: dict[Node, BatchNorm] = {}

    def _users(self, node: Node) -> list[Node]:
        return sorted(self.flow.users[node], key=self.flow.order.__getitem__)

    def _behind(self, node: Node) -> list[Node]:
        """Return the operators that read a node, which are behind it if it is only the name of a call."""
        return self._users(node) if called(node) == _MARK else [node]

    def read(self, node: Node) -> Node:
        """Return what an operator reads first, the tensor and not the name of the call that made it."""
        return self._tensor(next(iter(self.flow.arguments[node].values())))

    # What is found ----------------------------------------------------------------------------------------------------

    def placement(self, choose: Choice) -> Placement:
        """Return what is quantized."""
        named: dict[Node, str] = {}
        left = {}
        for node in self.flow.order:
            if called(node) in LAYERS:
                name, reason = self._name(node, set(named.values()))
                if reason is None:
                    named[node] = name
                else:
                    left[name] = reason
        chosen = choose(list(named.values()))
        found = {node: name for node, name in named.items() if name in chosen}
        for node in self.flow.order:
            self._round(node, node in found)
        layers = [self._layer(node, name) for node, name in found.items()]
        return Placement(layers, self._tensors(), left)

    def _name(self, node: Node, taken: Collection[str]) -> tuple[str, str | None]:
        """Return the name of a layer and why it cannot be quantized, if so."""
        call = self.call.get(node)
        path, _, rest = (call or "").partition("/")
        function = rest.partition("/")[0]
        if call is None or function not in LAYERS:
            module = (module_path(node) or [""])[-1]
            return module, f"it is computed within {function or 'other code'}"
        weight, bias = self._stored(node, path), self.flow.arguments[node]["bias"]
        if weight is None or not (bias is None or bias in self.stored):
            return call, f"its {'weight' if weight is None else 'bias'} is computed"
        name = weight.removesuffix(".weight")
        uses = 1 + sum(other == name or other.startswith(f"{name}#") for other in taken)
        return name if uses == 1 else f"{name}#{uses}", None

    def _stored(self, node: Node, path: str) -> str | None:
        """Return the name of a layer's weight: a stored tensor, or that of its module, made from stored ones."""
        source = self.flow.arguments[node]["weight"]
        if source in self.stored:
            return self.stored[source]
        module = self.model.get_submodule(path)
        return f"{path}.weight" if isinstance(getattr(module, "weight", None), Tensor) else None

    def _layer(self, node: Node, name: str) -> LayerSite:
        call, source = self.call[node], self.read(node)
        path = call.partition("/")[0]
        origin = self.origin(source)
        reads = self.call[self.sites[origin]] if origin in self.sites else None
        weight, bias = self._stored(node, path), self.flow.arguments[node]["bias"]
        assert weight is not None
        return LayerSite(
            name=name,
            call=call,
            weight=weight,
            bias=self.stored.get(bias),
            axis=int(called(node) in _TRANSPOSED),
            norm=self.norms.get(node),
            reads=reads,
            signed=not self.not_negative(source),
            relus=self._relus(source),
        )

    def _tensors(self) -> list[Tensors]:
        shared: dict[Node, list[Node]] = {}
        for node, first in self.sites.items():
            shared.setdefault(first, []).append(node)
        found = []
        for first, nodes in shared.items():
            again = [node for node in nodes if called(node) == "cat"]
            calls = [self.call[node] for node in nodes if node not in again]
            signed = not all(self.not_negative(node) for node in nodes)
            pooled = [
                node
                for node in self.flow.order
                if called(node).startswith("max_pool") and node in self.call and self.origin(node) in nodes
            ]
            found.append(
                Tensors(self.call[first], tuple(calls), tuple(self.call[node] for node in again + pooled), signed)
            )
        return found

    # How tensors go through the network -------------------------------------------------------------------------------

    def origin(self, node: Node) -> Node:
        """Return the tensor whose numbers a tensor's are."""
        while is_kind(node, Kind.SAME_NUMBERS) and node not in self.sites:
            node = self.read(node)
        return node

    def not_negative(self, node: Node) -> bool:
        """Return whether the numbers of a tensor are known to be zero or more."""
        kind = called(node)
        if kind in _NOT_NEGATIVE:
            return True
        arguments = self.flow.arguments.get(node, {})
        if kind in ("hardtanh", "clamp", "clamp_min"):
            least = arguments.get("min_val", arguments.get("min"))
            return isinstance(least, int | float) and least >= 0
        if kind in _POOLS or is_kind(node, Kind.SAME_NUMBERS):
            return self.not_negative(self.read(node))
        if kind in _JOINS:
            return all(self.not_negative(self._tensor(source)) for source in self.flow.inputs[node])
        return False

    def _tensor(self, node: Node) -> Node:
        return self.flow.inputs[node][0] if called(node) == _MARK else node

    def end(self, node: Node, norm: bool) -> Node:
        """Return the last tensor of what one kernel computes: `node`, its batch norm, its activation function."""
        behind = self.after[node]
        if len(behind) != 1 or behind[0] not in self.call:
            return node
        following = behind[0]
        if norm and called(following) == "batch_norm" and self.flow.arguments[following]["running_mean"] is not None:
            self.norms[node] = self._batch_norm(following)
            return self.end(following, norm=False)
        return following if called(following) in _ACTIVATIONS and self.not_negative(following) else node

    def _batch_norm(self, node: Node) -> BatchNorm:
        arguments = self.flow.arguments[node]
        names = [self.stored.get(arguments[key]) for key in ("weight", "bias", "running_mean", "running_var")]
        weight, bias, mean, variance = names
        assert mean is not None
        assert variance is not None
        return BatchNorm(self.call[node], weight, bias, mean, variance, arguments["eps"])

    def _relus(self, node: Node) -> tuple[str, ...]:
        """Return the calls of the activation functions right in front of what reads a tensor."""
        while is_kind(node, Kind.SAME_NUMBERS):
            node = self.read(node)
        return (self.call[node],) if called(node) in _ACTIVATIONS and node in self.call else ()

    def _round(self, node: Node, chosen: bool) -> None:
        """Let what an operator reads and what it computes be rounded, if it is one that runs in integers."""
        kind = called(node)
        sources = [self._tensor(source) for source in self.flow.inputs[node]] if kind in _JOINS else []
        if kind in LAYERS and chosen:
            self._rounded(self.read(node))
            end = self.end(node, norm=True)
            # Logits may be float: a linear layer runs in integers all the same.
            if kind != "linear" or not all(map(_takes_logits, self.after[end])):
                self._add(end)
        elif kind in _POOLS and self.origin(self.read(node)) in self.sites:
            self._add(self.end(node, norm=False))
        elif len(sources) > 1 and self._joins(sources):
            firsts = [self._rounded(source) for source in sources]
            if kind != "cat":
                self._add(self.end(node, norm=False))
            elif node in self.call:
                self._share([*firsts, node])

    def _joins(self, sources: list[Node]) -> bool:
        """Return whether tensors meet that can all be rounded, some of which are."""
        origins = [self.origin(source) for source in sources]
        reachable = all(origin in self.sites or self._reachable(origin) for origin in origins)
        return reachable and any(origin in self.sites for origin in origins)

    def _reachable(self, node: Node) -> bool:
        return node in self.call and node not in self.stored

    def _rounded(self, node: Node) -> Node:
        """Let what an operator reads be rounded where it is made; return that."""
        origin = self.origin(node)
        if origin not in self.sites and self._reachable(origin):
            self._add(self.end(origin, norm=False))
        return self.origin(node)

    def _add(self, node: Node) -> None:
        if node in self.call:
            self.sites.setdefault(node, node)

    def _share(self, nodes: list[Node]) -> None:
        """Give tensors one range."""
        firsts = {self.sites[node] for node in nodes if node in self.sites}
        first = min(firsts | {nodes[0]}, key=self.flow.order.__getitem__)
        self.sites.update({node: first for node, old in self.sites.items() if old in firsts})
        self.sites.update(dict.fromkeys(nodes, first))


def _takes_logits(node: Node) -> bool:
    """Return whether a node is an output of the network, or makes probabilities of what will be one."""
    return node.op == "output" or called(node) in ("softmax", "log_softmax")
