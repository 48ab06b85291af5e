"""Rules of layers: convolutions, linear layers, normalization by channel, PReLU and pooling."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from lightning_prune.graph import Arguments, Kind, module_path, operators
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed


def convolution(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a convolution: it sums over its input channels and makes one output channel a filter."""
    source, weight, groups = arguments["input"], arguments["weight"], arguments["groups"]
    dim = 1 - len(walk.shape(weight))  # the channels come right before the spatial dimensions, batched or not
    walk.only(source, dim)
    if "output_padding" in arguments and groups > 1:
        out = _transposed_groups(walk, node, arguments, dim)
    else:
        out = contract(walk, node, arguments, dim, int("output_padding" in arguments), groups)
    if out is None:
        return []
    walk.facts.filters.append(out.labels)
    return [out]


def linear(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a linear layer, which is a convolution over the last dimension and treats the others alike."""
    if len(walk.shape(arguments["weight"])) != 2:
        raise NotFollowed
    out = contract(walk, node, arguments, dim=-1)
    others = [axis for axis in walk.axes(arguments["input"]) if axis.dim != -1]
    if arguments["bias"] is not None:
        others = [Axis(axis.dim, axis.labels, torch.zeros_like(axis.zero)) for axis in others]
    if out is not None:
        walk.facts.filters.append(out.labels)
    return others if out is None else [*others, out]


def contract(
    walk: ChannelWalk, node: Node, arguments: Arguments, dim: int, out_dim: int = 0, groups: int = 1
) -> Axis | None:
    """Follow a layer that sums over the channels `dim` of its input; return the channels of its output.

    Args:
        walk: The walk.
        node: The layer.
        arguments: Its arguments; `input`, `weight` and `bias` are read.
        dim: Channel dimension of input and output, counted from the last.
        out_dim: Which of the weight's first two dimensions makes output channels.
        groups: Number of groups, more than one only if `out_dim` is 0.
    """
    facts, source, weight, bias = walk.facts, arguments["input"], arguments["weight"], arguments["bias"]
    columns, rows = walk.channels(weight, 1 - out_dim), walk.channels(weight, out_dim)
    positions = walk.shape(source if out_dim else node)
    if not positions.numel():
        raise NotFollowed
    if (name := walk.origin(weight)) is not None:
        facts.costs.append((name, positions.numel() // positions[dim]))
    if groups > 1:
        dead = join_groups(walk, node, arguments, walk.channels(source, dim), columns, rows)
    else:
        dead = sum_over(walk, node, walk.channels(source, dim), columns)
    if columns is not None:
        facts.readers.append(columns.labels)
    if rows is None:
        if (width := walk.shape(node)[dim]) > 1:
            made = f"have a weight that {weight.target} makes, which cannot be followed"
            facts.unfollowed.append(("".join(module_path(node)[-1:]), width, made))
        return None
    facts.owned.append((rows.labels, rows.labels, "writer"))
    return shifted(walk, node, Axis(dim, rows.labels, rows.zero | dead), bias)


def shifted(walk: ChannelWalk, node: Node, channels: Axis, bias: object) -> Axis:
    """Follow the bias of a layer, if it has one: it belongs to the output channels."""
    if bias is None:
        return channels
    shift = walk.channels(bias, 0)
    if shift is None or len(shift.labels) != len(channels.labels):
        walk.facts.keep(channels.labels, f"have a bias that cannot be followed, at {node.name}")
        return Axis(channels.dim, channels.labels, torch.zeros_like(channels.zero))
    walk.facts.own(channels.labels, shift, "bias")
    return Axis(channels.dim, channels.labels, channels.zero & shift.zero)


def _transposed_groups(walk: ChannelWalk, node: Node, arguments: Arguments, dim: int) -> Axis | None:
    """Follow a transposed convolution in groups, whose weight is `(in, out / groups, ...)`.

    Its groups go as a whole, inputs and outputs; what differs within a group stays.
    """
    facts, source, weight, groups = walk.facts, arguments["input"], arguments["weight"], arguments["groups"]
    entering, rows, columns = walk.channels(source, dim), walk.channels(weight, 0), walk.channels(weight, 1)
    if columns is not None:
        facts.keep(columns.labels, f"are part of every group of {node.name}")
    name = walk.origin(weight)
    if entering is None or rows is None or name is None:
        for axis in (entering, rows):
            if axis is not None:
                facts.keep(axis.labels, f"are part of a grouped convolution that cannot be followed, {node.name}")
        return None
    outputs = walk.shape(node)[dim]
    facts.costs.append((name, walk.shape(source).numel() // walk.shape(source)[dim]))
    inputs = rows.labels.view(groups, -1)
    facts.unite(entering.labels, rows.labels)
    facts.unite(inputs, inputs[:, :1])
    facts.whole_groups[name] = inputs.shape[1]
    facts.owned.append((rows.labels, rows.labels, "writer"))
    zero = (entering.zero | rows.zero).view(groups, -1).all(dim=1)
    facts.consumed.append((entering.labels, entering.zero | rows.zero, node))
    made = Axis(dim, inputs[:, 0].repeat_interleave(outputs // groups), zero.repeat_interleave(outputs // groups))
    return shifted(walk, node, made, arguments["bias"])


def sum_over(walk: ChannelWalk, node: Node, entering: Axis | None, columns: Axis | None) -> Tensor:
    """Couple a layer's inputs with the columns of its weight; return whether it reads nothing but zeros, `()` bool."""
    if entering is None or columns is None:
        for axis in (entering, columns):
            if axis is not None:
                walk.facts.keep(axis.labels, f"meet channels that cannot be followed, at {node.name}")
        return torch.tensor(False)
    walk.facts.unite(entering.labels, columns.labels)
    walk.facts.consumed.append((entering.labels, entering.zero | columns.zero, node))
    return entering.zero.all()


def join_groups(
    walk: ChannelWalk, node: Node, arguments: Arguments, entering: Axis | None, columns: Axis | None, rows: Axis | None
) -> Tensor:
    """Couple the channels of a grouped convolution; return `(outputs,)`, which outputs read nothing but zeros.

    Many small groups lose whole groups, a depthwise convolution single channels; few large ones lose the same positions
    in every group. In both cases all groups stay equally wide.
    """
    facts, groups = walk.facts, arguments["groups"]
    if entering is None or rows is None:
        for axis in (entering, columns, rows):
            if axis is not None:
                facts.keep(axis.labels, f"are part of a grouped convolution that cannot be followed, {node.name}")
        return torch.tensor(False)
    inputs, outputs = entering.labels.view(groups, -1), rows.labels.view(groups, -1)
    walk.sized(node, inputs[:, 0], entering.labels, rows.labels)
    quiet, removed = entering.zero.view(groups, -1), rows.zero.view(groups, -1)
    if groups >= max(inputs.shape[1], outputs.shape[1]):
        facts.unite(inputs, outputs[:, :1])
        facts.unite(outputs, outputs[:, :1])
        unread = quiet | removed.all(dim=1, keepdim=True)
        if (name := walk.origin(arguments["weight"])) is not None:
            facts.whole_groups[name] = outputs.shape[1]
    else:
        facts.unite(inputs, inputs[:1])
        facts.unite(outputs, outputs[:1])
        unread = quiet
        if columns is not None:
            facts.unite(inputs[0], columns.labels)
            unread = quiet | columns.zero
    facts.consumed.append((entering.labels, unread.reshape(-1), node))
    return quiet.all(dim=1, keepdim=True).expand(outputs.shape).reshape(-1)


def normalization(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow batch and instance norm, an affine map of each channel by its own statistics."""
    facts, channels = walk.facts, walk.only(arguments["input"], 1)
    found = {key: walk.channels(arguments[key], 0) for key in _AT_REST if arguments[key] is not None}
    known = {key: axis for key, axis in found.items() if axis is not None}
    if channels is None or len(known) < len(found):
        raise NotFollowed
    for key, axis in known.items():
        if key in ("weight", "bias"):
            facts.own(channels.labels, axis, "scale" if key == "weight" else "shift")
        else:
            facts.unite(channels.labels, axis.labels)
    zero = channels.zero & _silent_at_zero(walk, arguments)
    if "weight" in known and "bias" in known:
        zero = zero | (known["weight"].zero & known["bias"].zero)
    return [Axis(channels.dim, channels.labels, zero)]


_AT_REST = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}


def _silent_at_zero(walk: ChannelWalk, arguments: Arguments) -> Tensor:
    """Return which channels a normalization maps from zero to zero, a scalar if that is the same for all.

    Without running statistics the mean is that of a channel which is zero.
    """
    nodes = {key: arguments[key] for key in _AT_REST if arguments[key] is not None}
    if any(node not in walk.names for node in nodes.values()):
        return torch.tensor(False)
    stored = {key: walk.tensors[walk.names[node]] for key, node in nodes.items()}
    mean, variance, scale, shift = (stored.get(key, torch.tensor(value)) for key, value in _AT_REST.items())
    return (shift - scale * mean / torch.sqrt(variance + arguments["eps"]) == 0).cpu()


def prelu(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow PReLU, whose slopes belong to the channels when there is more than one."""
    slopes = walk.channels(arguments["weight"], 0)
    if slopes is not None:
        channels = walk.channels(arguments["self"], 1)
        if channels is None:
            raise NotFollowed
        walk.facts.own(channels.labels, slopes, "slope")
    return walk.axes(arguments["self"])


def spatial(walk: ChannelWalk, node: Node, arguments: Arguments) -> Any:
    """Follow pooling and resampling, which treat every channel alike and leave it where it is."""
    source = arguments["self"] if "self" in arguments else arguments["input"]
    name: str = node.target._schema.name  # type: ignore[union-attr]
    rank = next(int(rank) for rank in "123" if f"{rank}d" in name)
    if any(axis.dim >= -rank for axis in walk.axes(source)):
        raise NotFollowed
    return values_only(walk, node, walk.axes(source))


def values_only(walk: ChannelWalk, node: Node, axes: list[Axis]) -> Any:
    """Return `axes` as those of the values that `node` gives; keep them if it also gives indices that are used."""
    if isinstance(node.meta["val"], Tensor):
        return axes
    if any(user.args[1] != 0 and user.users for user in node.users):
        raise NotFollowed
    return [axes, []]


RULES = {
    **dict.fromkeys(operators(Kind.LAYER), convolution),
    "linear": linear,
    **dict.fromkeys(operators(Kind.CHANNEL_NORM), normalization),
    "prelu": prelu,
    **dict.fromkeys(operators(Kind.SPATIAL), spatial),
}
