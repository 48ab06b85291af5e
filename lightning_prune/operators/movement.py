"""Rules of operators that move values without mixing them, and of reductions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from lightning_prune.axes import Axis
from lightning_prune.operators.elementwise import together
from lightning_prune.operators.layers import values_only
from lightning_prune.walk import KEPT, Arguments, Walk


def move(walk: Walk, node: Node, source: Node, operator: Callable[[Tensor], Tensor]) -> list[Axis]:
    """Return the axes of what `operator` makes of `source` by giving its values another place."""
    result: list[Axis] = []
    for axis in walk.axes(source):
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


def reshape(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of shape."""
    source, shape = arguments["self"] if "self" in arguments else arguments["input"], walk.shape(node)
    axes = move(walk, node, source, lambda values: values.reshape(shape))
    if {"size", "shape", "sizes"} & arguments.keys():  # what the others are told is no number of channels
        walk.site(node, *(axis.along(dim) for axis in [*walk.axes(source), *axes] for dim in axis.dims))
    return axes


def permute(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of the order of dimensions or positions, or their repetition."""
    operator: Any = node.target
    if len(node.all_input_nodes) > 1:
        return walk.keep_inputs(node)
    return move(walk, node, node.all_input_nodes[0], lambda values: operator(values, *node.args[1:], **node.kwargs))


def same(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a copy, a broadcast, a change of memory layout or number format, or dropout, which eval mode skips."""
    source = next(value for value in arguments.values() if isinstance(value, Node))
    if source in walk.names and walk.shape(source) == walk.shape(node):
        walk.names[node] = walk.names[source]
    return walk.axes(source)


def nothing(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Pass over an operator that checks its input, or makes a tensor of its kind; it does not read the values."""
    return []


def filled(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a tensor that is filled with a number."""
    return [Axis(axis.dim, axis.labels, torch.zeros_like(axis.zero)) for axis in walk.axes(arguments["self"])]


def zeros_like(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a tensor of zeros that has the shape of another."""
    return [Axis(axis.dim, axis.labels, torch.ones_like(axis.zero)) for axis in walk.axes(arguments["self"])]


def select(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow the choice of one position; channels along its dimension are one if they vary along others too."""
    return _cut_along(walk, node, arguments["self"], arguments["dim"], whole=False)


def cut(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow the choice of a range of positions, of every second for example."""
    return _cut_along(walk, node, arguments["self"], arguments["dim"], whole=True)


def _cut_along(walk: Walk, node: Node, source: Node, dim: int, whole: bool) -> list[Axis]:
    """Follow an operator that chooses positions along a dimension, by numbers that may stand in the code."""
    operator: Any = node.target
    dim = negative(walk, source, dim)
    rest = node.args[1:]
    before = next((axis for axis in walk.axes(source) if dim in axis.dims), None)
    if before is not None and before.is_line:
        positions = torch.arange(len(before.labels))
        index = operator(positions, 0, *node.args[2:], **node.kwargs).reshape(-1)
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
        walk.site(node, before.labels, *(before.labels[part] for part in _ranges(start, size)))
    elif before is not None:
        walk.united(before, [dim] if whole else [])
    return move(walk, node, source, lambda values: operator(values, *rest, **node.kwargs))


def _ranges(start: int, size: int) -> tuple[slice, slice, slice]:
    """Return the ranges whose lengths tell where a part begins, how long it is, and where it ends."""
    return slice(0, start), slice(start, start + size), slice(0, start + size)


def roll(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a roll along dimensions without channels; channels that are rolled are kept."""
    rolled = {negative(walk, arguments["self"], dim) for dim in arguments["dims"]}
    if not rolled or any(rolled & set(axis.dims) for axis in walk.axes(arguments["self"])):
        return walk.keep_inputs(node)
    return walk.axes(arguments["self"])


def unbind(walk: Walk, node: Node, arguments: Arguments) -> list[list[Axis]]:
    """Follow a cut into single positions of a dimension."""
    source, dim = arguments["self"], negative(walk, arguments["self"], arguments["dim"])
    for axis in walk.axes(source):
        if axis.dims == [dim]:
            walk.facts.keep(axis.labels, f"are cut by {node.target}")
    return [
        move(walk, node, source, lambda values, i=i: values.select(dim, i))  # type: ignore[misc]
        for i in range(len(node.meta["val"]))
    ]


def chunk(walk: Walk, node: Node, arguments: Arguments) -> list[list[Axis]]:
    """Follow a split; parts of equal size lose the same positions."""
    source, parts = arguments["self"], node.meta["val"]
    dim = negative(walk, source, arguments["dim"])
    channels = next((axis for axis in walk.axes(source) if dim in axis.dims), None)
    sizes = [part.shape[dim] for part in parts]
    if channels is not None and channels.is_line:
        labels = torch.split(channels.labels, sizes)
        for size in set(sizes):
            same = torch.stack([part for part in labels if len(part) == size])
            walk.facts.unite(same, same[:1])
        if "chunks" not in arguments:
            walk.site(node, channels.labels, *labels)
    elif channels is not None:
        walk.united(channels, [dim])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        move(walk, node, source, lambda values, start=start, size=size: values.narrow(dim, start, size))  # type: ignore[misc]
        for start, size in zip(starts, sizes, strict=True)
    ]


def gate(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
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


def concatenate(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
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


def stack(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a stack along a new dimension: the channels of all parts are the same."""
    dim = negative(walk, node, arguments["dim"])
    parts = [[_behind(axis, dim) for axis in walk.axes(part)] for part in arguments["tensors"]]
    if any([axis.dims for axis in axes] != [axis.dims for axis in parts[0]] for axes in parts):
        return walk.keep_inputs(node)
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


def pad(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
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
                return walk.keep_inputs(node)
            labels = F.pad(labels, before_and_after, value=KEPT)
            zero = F.pad(zero, before_and_after, value=True)
        if constant and value != 0:
            zero = torch.zeros_like(zero)
        result.append(Axis(axis.dim, labels, zero))
    return result


def reduce(walk: Walk, node: Node, arguments: Arguments) -> Any:
    """Follow a mean, deviation or extremum over dimensions without channels; one over channels keeps them."""
    return _reduced(walk, node, arguments, adds=False)


def add_up(walk: Walk, node: Node, arguments: Arguments) -> Any:
    """Follow a sum or norm, to which channels that are zero add nothing."""
    return _reduced(walk, node, arguments, adds=True)


def _reduced(walk: Walk, node: Node, arguments: Arguments, adds: bool) -> Any:
    source, dims = arguments["self"], arguments.get("dim")
    rank = len(walk.shape(source))
    if isinstance(dims, int):
        dims = [dims]
    reduced = {negative(walk, source, dim) for dim in (dims if dims else range(rank))}
    axes: list[Axis] = []
    for axis in walk.axes(source):
        over = reduced & set(axis.dims)
        left: Axis | None = axis
        if over == set(axis.dims):
            left = None
            if adds and axis.is_line and arguments.get("ord", 1) > 0 and arguments.get("p", 1) > 0:
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


def softmax(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a softmax over a dimension without channels; channels along it are kept, and it makes no zeros."""
    dim = negative(walk, arguments["self"], arguments["dim"])
    result = []
    for axis in walk.axes(arguments["self"]):
        if axis.dims == [dim]:
            walk.facts.keep(axis.labels, f"are weighed against each other by {node.target}")
        elif (left := walk.united(axis, [dim])) is not None:
            result.append(Axis(left.dim, left.labels, torch.zeros_like(left.zero)))
    return result


def gather(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an index into dimensions that lie before those of the channels; channels along the indexed ones stay."""
    source, indices = arguments["self"], arguments["indices"]
    rank = len(walk.shape(source))
    indexed = [number - rank for number, index in enumerate(indices) if index is not None]
    kinds = [index.meta["val"].dtype for index in indices if isinstance(index, Node)]
    if indexed != list(range(indexed[0], indexed[-1] + 1)) or len(kinds) < len(indexed) or torch.bool in kinds:
        return walk.keep_inputs(node)
    axes = []
    for axis in walk.axes(source):
        if min(axis.dims) > indexed[-1]:
            axes.append(axis)
        else:
            walk.facts.keep(axis.labels, f"are chosen by {node.target}")
    return axes


def embedding(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an embedding, whose table has one row an entry and one column a channel."""
    rows, columns = walk.channels(arguments["weight"], 0), walk.channels(arguments["weight"], 1)
    if rows is not None:
        walk.facts.keep(rows.labels, f"are the entries of the table of {node.name}")
    if columns is None:
        return []
    walk.facts.owned.append((columns.labels, columns.labels, "writer"))
    return [Axis(-1, columns.labels, columns.zero)]


def pixel_shuffle(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a shuffle of channels into space: those that become one channel of the output are one."""
    channels, factor = walk.only(arguments["self"], -3), arguments["upscale_factor"] ** 2
    if channels is None:
        return []
    labels, zero = channels.labels.view(-1, factor), channels.zero.view(-1, factor)
    walk.facts.unite(labels, labels[:, :1])
    axis = walk.placed(labels[:, :1, None], zero.all(dim=1)[:, None, None])
    return [] if axis is None else [axis]


def pixel_unshuffle(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a shuffle of space into channels: each channel becomes several of the output."""
    channels, factor = walk.only(arguments["self"], -3), arguments["downscale_factor"] ** 2
    if channels is None:
        return []
    return [Axis(-3, channels.labels.repeat_interleave(factor), channels.zero.repeat_interleave(factor))]


def channel_shuffle(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a shuffle of channels between groups, which lose the same positions."""
    channels = walk.only(arguments["self"], 1)
    if channels is None:
        return []
    labels, zero = (side.view(arguments["groups"], -1) for side in (channels.labels, channels.zero))
    walk.facts.unite(labels, labels[:1])
    return [Axis(channels.dim, labels.T.reshape(-1), zero.T.reshape(-1))]


def patches(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow im2col, which puts the patch of each channel beside each other."""
    channels, (height, width) = walk.only(arguments["self"], -3), arguments["kernel_size"]
    if channels is None:
        return []
    size = height * width
    return [Axis(-2, channels.labels.repeat_interleave(size), channels.zero.repeat_interleave(size))]


def from_patches(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow col2im, the sum of the patches of each channel."""
    channels, (height, width) = walk.only(arguments["self"], -2), arguments["kernel_size"]
    if channels is None:
        return []
    labels, zero = channels.labels.view(-1, height * width), channels.zero.view(-1, height * width)
    walk.facts.unite(labels, labels[:, :1])
    axis = walk.placed(labels[:, :1, None], zero.all(dim=1)[:, None, None])
    return [] if axis is None else [axis]


def index_select(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a gather of channels by an index buffer, which slimming rewrites.

    An output channel is the input channel that it reads. One that reads a channel which is always zero is nobody
    else's, and can be removed on its own.
    """
    source, dim, index = arguments["self"], arguments["dim"], arguments["index"]
    facts, channels, reading = walk.facts, walk.only(source, dim), walk.channels(index, 0)
    if channels is None or reading is None or index not in walk.names:
        return walk.keep_inputs(node)
    order = walk.tensors[walk.names[index]].long().cpu()
    reads = ~(channels.zero & (channels.labels == KEPT))[order]
    facts.unite(reading.labels[reads], channels.labels[order][reads])
    before = facts.gathers.setdefault(walk.names[index], channels.labels)
    if len(before) != len(channels.labels):
        return walk.keep_inputs(node, f"are read by {walk.names[index]}, which reads from two widths")
    facts.unite(before, channels.labels)  # a buffer that serves twice is rewritten once
    return [Axis(channels.dim, reading.labels, channels.zero[order])]


def negative(walk: Walk, node: Node, dim: int) -> int:
    """Return `dim` counted from the last dimension of a node, which is -1."""
    return dim if dim < 0 else dim - len(walk.shape(node))
