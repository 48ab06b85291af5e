"""Rules of elementwise operators."""

import torch
from torch import Tensor
from torch.fx import Node

from lightning_prune.graph import Arguments, Kind, called, is_kind, keeps_zero, operators
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed


def pointwise(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an elementwise operator of any number of tensors: what stands at one position is one channel."""
    operands = [argument for argument in arguments.values() if isinstance(argument, Node)]
    if not isinstance(node.meta["val"], Tensor):
        raise NotFollowed
    result = []
    for dims in together([axis for operand in operands for axis in walk.axes(operand)]):
        found = [_joined(walk, node, operand, dims) for operand in operands]
        labels = [axis.spread[0] for axis in found if axis is not None]
        if not labels:
            continue
        merged = labels[0]
        if len(labels) > 1:
            # New labels, because what an operator makes of two channels is neither of them.
            shape = torch.broadcast_shapes(*(each.shape for each in labels))  # type: ignore[no-untyped-call]
            merged = walk.facts.fresh(shape.numel()).view(shape)
            for other in labels:
                walk.facts.unite(merged, other)
        unknown = torch.zeros(1, dtype=torch.bool)
        zeros = [unknown if axis is None else axis.spread[1] for axis in found]
        zero = stays_zero(node, arguments, operands, list(torch.broadcast_tensors(*zeros)))  # type: ignore[no-untyped-call]
        axis = walk.placed(merged, zero.expand(merged.shape))
        result += [] if axis is None else [axis]
    return result


def together(axes: list[Axis]) -> list[set[int]]:
    """Return the dimensions of channels, those that vary together in any operand in one set."""
    found: list[set[int]] = []
    for axis in axes:
        dims = set(axis.dims)
        for other in [other for other in found if other & dims]:
            dims |= other
            found.remove(other)
        found.append(dims)
    return found


def _joined(walk: ChannelWalk, node: Node, operand: Node, dims: set[int]) -> Axis | None:
    """Return the channels of an operand along dimensions on which some operand has channels, None if it is constant.

    It may have other values along them, which nobody follows. What meets these is kept, unless channels vary along
    other dimensions too: then those that differ along the unknown ones alone become one.
    """
    repeated = called(operand) in ("expand", "expand_as") and operand.all_input_nodes[0]
    shape = walk.shape(repeated or operand)  # along a dimension that was expanded from one position nothing varies
    axes = [axis for axis in walk.axes(operand) if dims & set(axis.dims)]
    if any(set(axis.dims) < dims for axis in axes) and walk.is_constant(operand):
        # Positions within a head, the same for every head, in a rotary embedding for example.
        for axis in axes:
            walk.facts.keep(axis.labels, f"are the same for all heads, at {node.name}")
        axes = []
    known = {dim for axis in axes for dim in axis.dims}
    unknown = {dim for dim in dims if -dim <= len(shape) and shape[dim] > 1} - known
    met = [axis for source in node.all_input_nodes for axis in walk.axes(source) if dims & set(axis.dims)]
    if unknown == dims or len(axes) > 1:
        for axis in met:
            walk.facts.keep(axis.labels, f"meet a tensor that cannot be followed, at {node.name}")
        return None
    for axis in met if unknown else ():
        walk.united(axis, unknown)
    return axes[0] if axes else None


def stays_zero(node: Node, arguments: Arguments, operands: list[Node], zeros: list[Tensor]) -> Tensor:
    """Return where an elementwise operator gives zero, knowing where its operands do: bool of one shape."""
    if is_kind(node, Kind.PRODUCT):
        return torch.stack(zeros).any(dim=0)
    if called(node) == "div" and arguments["self"] in operands:
        return zeros[operands.index(arguments["self"])]
    return torch.stack(zeros).all(dim=0) & keeps_zero(node, arguments)


RULES = dict.fromkeys([*operators(Kind.ELEMENTWISE), "max.other", "min.other"], pointwise)
