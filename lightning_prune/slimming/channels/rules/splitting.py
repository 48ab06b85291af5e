"""Rules of operators that cut tensors into parts, and join them."""

from typing import Any

import torch
from torch.fx import Node

from lightning_prune.graph import Arguments
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed
from lightning_prune.slimming.channels.facts import KEPT
from lightning_prune.slimming.channels.rules.elementwise import together
from lightning_prune.slimming.channels.rules.rearranging import move, negative


def select(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow the choice of one position; channels along its dimension are one if they vary along others too."""
    return _cut_along(walk, node, arguments["self"], arguments["dim"], whole=False)


def slice_range(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow the choice of a range of positions, of every second for example."""
    if isinstance(arguments["start"], Node):
        raise NotFollowed
    return _cut_along(walk, node, arguments["self"], arguments["dim"], whole=True)


def _cut_along(walk: ChannelWalk, node: Node, source: Node, dim: int, whole: bool) -> list[Axis]:
    """Follow an operator that chooses positions along a dimension, by numbers that may stand in the code."""
    operator: Any = node.target
    dim = negative(walk, source, dim)
    rest = node.args[1:]
    before = next((axis for axis in walk.axes(source) if dim in axis.dims), None)
    if before is not None and before.is_line:
        positions = torch.arange(len(before.labels))
        index = operator(positions, 0, *node.args[2:], **node.kwargs).reshape(-1)
        if not len(index):
            raise NotFollowed
        start, size = int(index[0]), len(index)
        step = int(index[1]) - start if size > 1 else 1
        if size == len(before.labels):
            return walk.axes(source)
        if whole and step == 1:
            if len(before.labels) % size == 0 and start % size == 0:
                # Code may rely on parts of equal size to stay equal.
                parts = before.labels.view(-1, size)
                walk.facts.unite(parts, parts[:1])
        elif whole and start < step and len(before.labels) == step * size:
            turns = before.labels.view(-1, step)
            walk.facts.unite(turns, turns[:, :1])
        else:
            walk.facts.keep(before.labels, f"are cut by {node.target}")
        walk.sized(node, before.labels, *(before.labels[part] for part in _ranges(start, size)))
    elif before is not None:
        walk.united(before, [dim] if whole else [])
    return move(walk, node, source, lambda values: operator(values, *rest, **node.kwargs))


def _ranges(start: int, size: int) -> tuple[slice, slice, slice]:
    """Return the ranges whose lengths tell where a part begins, how long it is, and where it ends."""
    return slice(0, start), slice(start, start + size), slice(0, start + size)


def unbind(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[list[Axis]]:
    """Follow a cut into single positions of a dimension."""
    source, dim = arguments["self"], negative(walk, arguments["self"], arguments["dim"])
    for axis in walk.axes(source):
        if axis.dims == [dim]:
            walk.facts.keep(axis.labels, f"are cut by {node.target}")
    return [
        move(walk, node, source, lambda values, i=i: values.select(dim, i))  # type: ignore[misc]
        for i in range(len(node.meta["val"]))
    ]


def chunk(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[list[Axis]]:
    """Follow a split; parts of equal size lose the same positions."""
    source, parts = arguments["self"], node.meta["val"]
    dim = negative(walk, source, arguments["dim"])
    channels = next((axis for axis in walk.axes(source) if dim in axis.dims), None)
    sizes = [part.shape[dim] for part in parts]
    if sum(sizes) != walk.shape(source)[dim]:  # parts that overlap
        raise NotFollowed
    if channels is not None and channels.is_line:
        labels = torch.split(channels.labels, sizes)
        for size in set(sizes):
            same = torch.stack([part for part in labels if len(part) == size])
            walk.facts.unite(same, same[:1])
        if not {"chunks", "sections"} & arguments.keys():
            walk.sized(node, channels.labels, *labels)
    elif channels is not None:
        walk.united(channels, [dim])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        move(walk, node, source, lambda values, start=start, size=size: values.narrow(dim, start, size))  # type: ignore[misc]
        for start, size in zip(starts, sizes, strict=True)
    ]


def gated_linear_unit(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a gated linear unit, the product of one half of the channels with a sigmoid of the other."""
    source = arguments["self"]
    dim = negative(walk, source, arguments["dim"])
    channels = walk.channels(source, dim)
    others = [axis for axis in walk.axes(source) if dim not in axis.dims]
    if channels is None:
        return others
    labels = channels.labels.view(2, -1)
    walk.facts.unite(labels[0], labels[1])
    return [*others, Axis(dim, labels[0], channels.zero.view(2, -1)[0])]


def concatenate(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a concatenation: the channels of each part keep their labels, and those not followed stay."""
    dim = negative(walk, node, arguments["dim"])
    # An empty tensor may stand beside others of any shape.
    parts = [part for part in arguments["tensors"] if walk.shape(part).numel()]
    result = []
    for dims in together([axis for part in parts for axis in walk.axes(part)]):
        found = [[axis for axis in walk.axes(part) if dims & set(axis.dims)] for part in parts]
        if any(set(axis.dims) != dims for axes in found for axis in axes) or (dims != {dim} and not all(found)):
            for axis in (axis for axes in found for axis in axes):
                walk.facts.keep(axis.labels, f"are joined with others, at {node.name}")
            continue
        if dims == {dim}:
            lines = [
                axes[0] if axes else _fixed(walk.shape(part)[dim], dim) for axes, part in zip(found, parts, strict=True)
            ]
            labels, zero = torch.cat([line.labels for line in lines]), torch.cat([line.zero for line in lines])
            result.append(Axis(dim, labels, zero))
            continue
        spread = [axes[0].spread for axes in found]
        if dim in dims:
            labels, zero = (torch.cat(side, dim) for side in zip(*spread, strict=True))
        else:
            labels, zero = spread[0][0], torch.stack([zero for _, zero in spread]).all(dim=0)
            for other, _ in spread[1:]:
                walk.facts.unite(labels, other)
        result += [axis for axis in [walk.placed(labels, zero)] if axis is not None]
    return result


def _fixed(count: int, dim: int) -> Axis:
    """Return channels that are not followed, and stay."""
    return Axis(dim, torch.full((count,), KEPT), torch.zeros(count, dtype=torch.bool))


def stack(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a stack along a new dimension: the channels of all parts are the same."""
    dim = negative(walk, node, arguments["dim"])
    parts = [[_behind(axis, dim) for axis in walk.axes(part)] for part in arguments["tensors"]]
    if any([axis.dims for axis in axes] != [axis.dims for axis in parts[0]] for axes in parts):
        raise NotFollowed
    result = []
    for same in zip(*parts, strict=True):
        for other in same[1:]:
            walk.facts.unite(same[0].labels, other.labels)
        result.append(Axis(same[0].dim, same[0].labels, torch.stack([axis.zero for axis in same]).all(dim=0)))
    return result


def _behind(axis: Axis, dim: int) -> Axis:
    """Return where channels lie once there is a new dimension `dim`."""
    labels, zero = axis.spread
    if labels.ndim < -dim:
        return axis
    moved = Axis.of(labels.unsqueeze(dim), zero.unsqueeze(dim))
    return axis if moved is None else moved


RULES = {
    **dict.fromkeys(("slice", "narrow"), slice_range),
    "select": select,
    "unbind": unbind,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), chunk),
    "glu": gated_linear_unit,
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    "stack": stack,
}
