"""Rules of operators that move values without mixing them, and of reductions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional as F

from lightning_prune.axes import Axis
from lightning_prune.operators.layers import values_only
from lightning_prune.walk import KEPT, Arguments, Walk


def move(walk: Walk, node: Node, source: Node, operator: Callable[[Tensor], Tensor]) -> list[Axis]:
    """Return the axes of what `operator` makes of `source` by giving its values another place.

    Channels that it splits into `(outer, inner)` become `inner` ones, the same in every outer.
    """
    result: list[Axis] = []
    for axis in walk.axes(source):
        labels, zero = axis.moved(operator, walk.shape(source))
        dims = [dim for dim in range(-labels.ndim, 0) if labels.shape[dim] > 1]
        for outer in dims[:-1]:
            walk.facts.unite(labels, labels.narrow(outer, 0, 1))
            labels, zero = labels.narrow(outer, 0, 1), zero.all(dim=outer, keepdim=True)
        dim = dims[-1] if dims else 0
        if not dims or any(other.dim == dim for other in result):
            walk.facts.keep(labels.reshape(-1), f"are one with all others of a tensor, at {node.name}")
        else:
            result.append(Axis(dim, labels.reshape(-1), zero.reshape(-1)))
    return result


def reshape(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of shape."""
    source, shape = arguments["self"] if "self" in arguments else arguments["input"], walk.shape(node)
    return move(walk, node, source, lambda values: values.reshape(shape))


def permute(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of the order of dimensions."""
    operator: Any = node.target
    others = [value for key, value in arguments.items() if key not in ("self", "input")]
    return move(walk, node, arguments["self"], lambda values: operator(values, *others))


def same(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a copy, a broadcast, a change of memory layout or number format, or dropout, which eval mode skips."""
    source = next(value for value in arguments.values() if isinstance(value, Node))
    if source in walk.names and walk.shape(source) == walk.shape(node):
        walk.names[node] = walk.names[source]
    return walk.axes(source)


def nothing(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Pass over an operator that checks its input, or makes a tensor of its kind; it does not read the values."""
    return []


def zeros_like(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a tensor of zeros that has the shape of another."""
    return [Axis(axis.dim, axis.labels, torch.ones_like(axis.zero)) for axis in walk.axes(arguments["self"])]


def cut(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a cut across dimensions without channels; what cuts or reorders channels keeps them."""
    operator: Any = node.target
    others = [value for key, value in arguments.items() if key != "self"]
    axes = walk.axes(arguments["self"])
    moved = move(walk, node, arguments["self"], lambda values: operator(values, *others))
    if len(moved) < len(axes) or any(
        not torch.equal(new.labels, old.labels) for new, old in zip(moved, axes, strict=True)
    ):
        return walk.keep_inputs(node, f"are cut by {node.target}")
    return moved


def chunk(walk: Walk, node: Node, arguments: Arguments) -> list[list[Axis]]:
    """Follow a split; equal parts, of which the code gives the number and not the size, lose the same positions."""
    source, parts = arguments["self"], node.meta["val"]
    dim = negative(walk, source, arguments["dim"])
    channels = walk.channels(source, dim)
    others = [axis for axis in walk.axes(source) if axis.dim != dim]
    if channels is None:
        return [others for _ in parts]
    if "chunks" not in arguments or len({part.shape[dim] for part in parts}) > 1:
        walk.facts.keep(channels.labels, f"are cut by {node.target}")
        return [others for _ in parts]
    labels, zeros = channels.labels.view(len(parts), -1), channels.zero.view(len(parts), -1)
    walk.facts.unite(labels, labels[:1])
    return [[*others, Axis(dim, part, zero)] for part, zero in zip(labels, zeros, strict=True)]


def gate(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a gated linear unit, the product of one half of the channels with a sigmoid of the other."""
    source = arguments["self"]
    dim = negative(walk, source, arguments["dim"])
    channels = walk.channels(source, dim)
    others = [axis for axis in walk.axes(source) if axis.dim != dim]
    if channels is None:
        return others
    labels = channels.labels.view(2, -1)
    walk.facts.unite(labels[0], labels[1])
    return [*others, Axis(dim, labels[0], channels.zero.view(2, -1)[0])]


def concatenate(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a concatenation: the channels of each part keep their labels, and those not followed stay."""
    parts, dim = arguments["tensors"], negative(walk, node, arguments["dim"])
    result = []
    joined = [(walk.channels(part, dim), walk.shape(part)[dim]) for part in parts]
    if any(axis is not None for axis, _ in joined):
        labels = [torch.full((size,), KEPT) if axis is None else axis.labels for axis, size in joined]
        zeros = [torch.zeros(size, dtype=torch.bool) if axis is None else axis.zero for axis, size in joined]
        result.append(Axis(dim, torch.cat(labels), torch.cat(zeros)))
    for other in dict.fromkeys(axis.dim for part in parts for axis in walk.axes(part) if axis.dim != dim):
        found = [walk.channels(part, other) for part in parts]
        axes = [axis for axis in found if axis is not None]
        if len(axes) < len(found):
            return walk.keep_inputs(node)
        for axis in axes[1:]:
            walk.facts.unite(axes[0].labels, axis.labels)
        result.append(Axis(other, axes[0].labels, torch.stack([axis.zero for axis in axes]).all(dim=0)))
    return result


def pad(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow padding; channels that it adds stay, because their number is written in the model's code."""
    amounts, value = arguments["pad"], arguments["value"] or 0
    constant = arguments.get("mode", "constant") == "constant"
    result = []
    for axis in walk.axes(arguments["self"]):
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
    """Follow a mean, sum, deviation or extremum over dimensions without channels; one over channels keeps them."""
    source, dims = arguments["self"], arguments.get("dim")
    rank = len(walk.shape(source))
    dims = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    reduced = {negative(walk, source, dim) for dim in dims}
    axes = walk.axes(source)
    if any(axis.dim in reduced for axis in axes):
        return walk.keep_inputs(node, f"are reduced by {node.target}")
    if not arguments.get("keepdim"):
        axes = [Axis(a.dim + sum(dim > a.dim for dim in reduced), a.labels, a.zero) for a in axes]
    return values_only(walk, node, axes)


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
