"""Rules of operators that move values without mixing them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from lightning_prune.graph import Arguments, Kind, operators
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed
from lightning_prune.slimming.channels.facts import KEPT


def move(walk: ChannelWalk, node: Node, source: Node, operator: Callable[[Tensor], Tensor]) -> list[Axis]:
    """Return the axes of what `operator` makes of `source`, of any shape, by giving its values another place."""
    result: list[Axis] = []
    is_empty = any(not values.numel() for values in tree_leaves(node.meta["val"]))
    for axis in walk.axes(source):
        if is_empty:
            raise NotFollowed
        labels, zero = axis.moved(operator, walk.shape(source))
        moved = walk.placed(labels, zero)
        if moved is None:
            continue
        if len(moved.dims) > len(axis.dims):
            walk.facts.splits.append(moved.labels)
        if taken := [other for other in result if set(other.dims) & set(moved.dims)]:
            for one in (moved, *taken):
                walk.facts.keep(one.labels, f"meet others on one dimension, at {node.name}")
        else:
            result.append(moved)
    return result


def reshape(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of shape."""
    source, shape = arguments["self"] if "self" in arguments else arguments["input"], walk.shape(node)
    if shape.numel() != walk.shape(source).numel():  # a view of each number as several
        raise NotFollowed
    axes = move(walk, node, source, lambda values: values.reshape(shape))
    if {"size", "shape", "sizes"} & arguments.keys():  # what the others are told is no number of channels
        walk.sized(node, *(axis.along(dim) for axis in [*walk.axes(source), *axes] for dim in axis.dims))
    return axes


def permute(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of the order of dimensions or positions, or their repetition."""
    operator: Any = node.target
    if len(node.all_input_nodes) > 1 or "self" not in arguments:  # how often each is repeated is computed
        raise NotFollowed
    return move(walk, node, arguments["self"], lambda values: operator(values, *node.args[1:], **node.kwargs))


def copy(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a copy, a broadcast, a change of memory layout or number format, or dropout, which eval mode skips."""
    source = next(value for value in arguments.values() if isinstance(value, Node))
    if source in walk.names and walk.shape(source) == walk.shape(node):
        walk.names[node] = walk.names[source]
    return walk.axes(source)


def alpha_dropout(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a dropout that eval mode skips; where code runs it all the same, it makes other numbers of zeros."""
    if arguments["train"]:
        raise NotFollowed
    return copy(walk, node, arguments)


def unread(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Pass over an operator that checks its input, or makes a tensor of its kind; it does not read the values."""
    return []


def filled(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a tensor that is filled with a number."""
    return [Axis(axis.dim, axis.labels, torch.zeros_like(axis.zero)) for axis in walk.axes(arguments["self"])]


def zeros_like(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a tensor of zeros that has the shape of another."""
    return [Axis(axis.dim, axis.labels, torch.ones_like(axis.zero)) for axis in walk.axes(arguments["self"])]


def roll(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a roll along dimensions without channels; channels that are rolled are kept."""
    rolled = {negative(walk, arguments["self"], dim) for dim in arguments["dims"]}
    if not rolled or any(rolled & set(axis.dims) for axis in walk.axes(arguments["self"])):
        raise NotFollowed
    return walk.axes(arguments["self"])


def pad(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow padding; channels that it adds stay, because their number is written in the model's code."""
    amounts, value = arguments["pad"], arguments["value"] or 0
    constant = arguments.get("mode", "constant") == "constant"
    result = []
    for axis in walk.axes(arguments["self"]):
        if not axis.is_line:
            united = walk.united(axis, [dim for dim in axis.dims if any(amounts[2 * (-1 - dim) :][:2])])
            result += (
                [] if united is None else [Axis(united.dim, united.labels, united.zero & (constant and value == 0))]
            )
            continue
        labels, zero = axis.labels, axis.zero
        before_and_after = tuple(amounts[2 * (-1 - axis.dim) :][:2])
        if any(before_and_after):
            if min(before_and_after) < 0 or not constant:
                raise NotFollowed
            labels = F.pad(labels, before_and_after, value=KEPT)
            zero = F.pad(zero, before_and_after, value=True)
        if constant and value != 0:
            zero = torch.zeros_like(zero)
        result.append(Axis(axis.dim, labels, zero))
    return result


def negative(walk: ChannelWalk, node: Node, dim: int) -> int:
    """Return `dim` counted from the last dimension of a node, which is -1."""
    return dim if dim < 0 else dim - len(walk.shape(node))


RULES = {
    **dict.fromkeys(operators(Kind.RESHAPES), reshape),
    **dict.fromkeys(operators(Kind.REARRANGES), permute),
    **dict.fromkeys((*operators(Kind.COPIES), "dropout", "feature_dropout"), copy),
    "alpha_dropout": alpha_dropout,
    **dict.fromkeys(("zeros_like", "zero"), zeros_like),
    "fill": filled,
    **dict.fromkeys(("_assert_tensor_metadata", "_assert_async"), unread),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), unread),
    **dict.fromkeys(("ones_like", "full_like", "empty_like", "rand_like", "randn_like"), unread),
    "roll": roll,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
}
