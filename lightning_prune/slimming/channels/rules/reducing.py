"""Rules of operators that reduce dimensions, or weigh positions against each other."""

from typing import Any

import torch
from torch.fx import Node

from lightning_prune.graph import Arguments
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk
from lightning_prune.slimming.channels.rules.layers import values_only
from lightning_prune.slimming.channels.rules.rearranging import negative


def reduce(walk: ChannelWalk, node: Node, arguments: Arguments) -> Any:
    """Follow a mean, deviation or extremum over dimensions without channels; one over channels keeps them."""
    return _reduced(walk, node, arguments, adds=False)


def add_up(walk: ChannelWalk, node: Node, arguments: Arguments) -> Any:
    """Follow a sum or norm, to which channels that are zero add nothing."""
    return _reduced(walk, node, arguments, adds=True)


def _reduced(walk: ChannelWalk, node: Node, arguments: Arguments, adds: bool) -> Any:
    source, dims = arguments["self"], arguments.get("dim")
    rank = len(walk.shape(source))
    order = arguments.get("ord", arguments.get("p"))  # of a norm, 2 if it is not told; none of a sum
    if isinstance(dims, int):
        dims = [dims]
    reduced = {negative(walk, source, dim) for dim in (dims if dims else range(rank))}
    axes: list[Axis] = []
    for axis in walk.axes(source):
        over = reduced & set(axis.dims)
        left: Axis | None = axis
        if over == set(axis.dims):
            left = None
            if adds and axis.is_line and (order is None or order > 0):
                walk.facts.consumed.append((axis.labels, axis.zero, node))
            else:
                walk.facts.keep(axis.labels.reshape(-1), f"are reduced by {node.target}")
        elif over:
            left = walk.united(axis, over)
        axes += [left] if left is not None else []
    if not arguments.get("keepdim"):
        axes = [axis for axis in (_without(a, reduced) for a in axes) if axis is not None]
    return values_only(walk, node, axes)


def _without(axis: Axis, dims: set[int]) -> Axis | None:
    """Return where channels lie once dimensions on which they do not vary are gone."""
    spread = [side.squeeze([dim for dim in dims if -dim <= side.ndim]) for side in axis.spread]
    return Axis.of(*spread)


def softmax(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a softmax over a dimension without channels; channels along it are kept, and it makes no zeros."""
    dim = negative(walk, arguments["self"], arguments["dim"])
    result = []
    for axis in walk.axes(arguments["self"]):
        if axis.dims == [dim]:
            walk.facts.keep(axis.labels, f"are weighed against each other by {node.target}")
        elif (left := walk.united(axis, [dim])) is not None:
            result.append(Axis(left.dim, left.labels, torch.zeros_like(left.zero)))
    return result


RULES = {
    **dict.fromkeys(("mean", "std", "var", "amax", "amin", "max", "min"), reduce),
    **dict.fromkeys(("sum", "norm", "linalg_vector_norm"), add_up),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax"), softmax),
}
