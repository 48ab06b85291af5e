"""Which rule each ATen operator follows, gathered from the files in `rules/`, and the walk that applies them."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from lightning_prune.graph import Arguments, Kind, arguments_of, called, is_kind, written_by
from lightning_prune.slimming.channels import rules
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed
from lightning_prune.slimming.channels.rules.elementwise import pointwise

Rule = Callable[[ChannelWalk, Node, Arguments], Any]
"""From the walk, a node and its arguments by schema name to the axes of the output, a list of such for several.

It raises `NotFollowed` for calls that it was not made for; anything else that it raises is a defect.
"""


def gathered(modules: Iterable[ModuleType]) -> dict[str, Rule]:
    """Return the rules of some modules in one table: each says in `RULES` which it has for which operators.

    Args:
        modules: `RULES` of each is a mapping from an operator's name to its rule, `max`, or that of one of its
            overloads, `max.other`. A name that writes in place, `relu_`, is that without the `_`.
    """
    table: dict[str, Rule] = {}
    for module in modules:
        own: Mapping[str, Rule] = module.RULES
        twice = sorted(table.keys() & own.keys())
        assert not twice, f"{module.__name__} has rules for {', '.join(twice)}, and so has another file"
        table.update(own)
    return table


RULES = gathered(
    importlib.import_module(f"{rules.__name__}.{found.name}") for found in pkgutil.iter_modules(rules.__path__)
)


def rule_of(node: Node) -> Rule | None:
    """Return the rule for a call of an ATen operator, None if there is none."""
    operator = node.target
    assert isinstance(operator, torch._ops.OpOverload)
    name = called(node)
    elementwise = pointwise if is_kind(node, Kind.ELEMENTWISE) else None
    return RULES.get(f"{name}.{operator._overloadname}", RULES.get(name, elementwise))


def follow(model: nn.Module, program: ExportedProgram) -> ChannelWalk:
    """Follow the channels of a model through its exported graph.

    Args:
        model: The model; it is not changed.
        program: Its graph, or that of a model of which it is a copy.
    """
    walk = ChannelWalk(model, program)
    for node in program.graph.nodes:
        if node.op == "call_function":
            _visit(walk, node)
        elif node.op == "output":
            walk.keep_inputs(node, "are outputs of the model")
    return walk


def _visit(walk: ChannelWalk, node: Node) -> None:
    """Apply the rule of a node's operator; a call without one, or that its rule refuses, keeps all that enters it."""
    try:
        walk.give(node, _followed(walk, node))
    except NotFollowed as refusal:
        walk.give(node, walk.keep_inputs(node, refusal.reason))
    if is_kind(node, Kind.ACTIVATION):
        walk.facts.activations += [(node, axis) for axis in walk.axes(node) if axis.is_line]


def _followed(walk: ChannelWalk, node: Node) -> Any:
    if not isinstance(node.target, torch._ops.OpOverload):
        return _output(walk, node)
    rule = rule_of(node)
    if rule is None or not _is_of_fixed_tensors(node) or _writes_elsewhere(node):
        raise NotFollowed
    return rule(walk, node, arguments_of(node))


def _is_of_fixed_tensors(node: Node) -> bool:
    """Return whether a call gives tensors, and is told no size or number that depends on what the graph computes."""
    operator: Any = node.target
    values = tree_leaves([each.meta.get("val") for each in (node, *node.all_input_nodes)])
    sizes = [size for value in values for size in (value.shape if isinstance(value, Tensor) else [value])]
    fixed = not any(isinstance(size, torch.SymInt | torch.SymFloat | torch.SymBool) for size in sizes)
    return fixed and all("Tensor" in str(value.type) for value in operator._schema.returns)


def _writes_elsewhere(node: Node) -> bool:
    """Return whether an operator writes its result into a tensor that it does not read, as `out=` makes it do."""
    return any(tensor is not node.args[0] for tensor in written_by(node))


def _output(walk: ChannelWalk, node: Node) -> list[Axis]:
    """Return the axes of one output of an operator with several."""
    if called(node) != "getitem":
        raise NotFollowed
    source: Any = node.args[0]
    outputs = walk.values.get(source, [])
    return outputs[node.args[1]] if outputs and isinstance(outputs[0], list) else []
