"""Rules by ATen operator: which channels of the inputs and of the output are the same, and which stay zero.

A rule takes the walk, the node and its arguments by schema name, and returns the axes of the output. An operator
without a rule keeps every channel that enters it.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from lightning_prune.axes import Axis
from lightning_prune.walk import KEPT, Gather, Walk

Arguments = dict[str, Any]
Rule = Callable[[Walk, Node, Arguments], Any]


def visit(walk: Walk, node: Node) -> Any:
    """Apply the rule of a node's operator; return the axes of its output, a list of such for several outputs."""
    if node.target.__class__ is not torch._ops.OpOverload:
        if getattr(node.target, "__name__", "") == "getitem":
            outputs = walk.values.get(node.args[0], [])
            return outputs[node.args[1]] if outputs and isinstance(outputs[0], list) else []
        return walk.keep_inputs(node, f"enter {node.target}")
    schema = node.target._schema
    name = schema.name.removeprefix("aten::")
    name = name.removesuffix("_") if schema.is_mutable else name
    arguments = {argument.name: argument.default_value for argument in schema.arguments}
    arguments.update(zip(arguments, node.args, strict=False))
    arguments.update(node.kwargs)
    rule = RULES.get(name, pointwise if torch.Tag.pointwise in node.target.tags else unknown)
    value = rule(walk, node, arguments)
    if schema.is_mutable and isinstance(node.args[0], Node):
        walk.values[node.args[0]] = value
    return value


def unknown(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Keep every channel that enters an operator that cannot be followed."""
    return walk.keep_inputs(node, f"enter {node.target}")


# Layers ---------------------------------------------------------------------------------------------------------------


def convolution(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a convolution: it sums over its input channels and makes one output channel a filter."""
    weight, groups = arguments["weight"], arguments.get("groups", 1)
    dim = 1 - len(walk.shape(weight))  # the channels come right before the spatial dimensions, batched or not
    transposed = "output_padding" in arguments
    if transposed and groups > 1:
        return unknown(walk, node, arguments)
    out = contract(walk, node, arguments, dim, int(transposed), groups)
    if out is not None:
        walk.facts.filters.append(out.labels)
    return [] if out is None else [walk.along(node, dim, out)]


def linear(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a linear layer, which is a convolution over the last dimension."""
    out = contract(walk, node, arguments, -1, 0, 1)
    return [] if out is None else [walk.along(node, -1, out)]


def contract(walk: Walk, node: Node, arguments: Arguments, dim: int, out_dim: int, groups: int) -> Axis | None:
    """Follow a layer that sums over the channels `dim` of its input; return the channels of its output.

    Args:
        walk: The walk.
        node: The layer.
        arguments: Its arguments; `input`, `weight` and `bias` are read.
        dim: Channel dimension of input and output.
        out_dim: Which of the weight's first two dimensions makes output channels.
        groups: Number of groups, more than one only if `out_dim` is 0.
    """
    facts, source, weight = walk.facts, arguments["input"], arguments["weight"]
    entering = walk.channels(source, dim)
    columns, rows = walk.channels(weight, 1 - out_dim), walk.channels(weight, out_dim)
    if weight in walk.names:
        positions = walk.shape(source if out_dim else node)
        facts.costs.append((walk.names[weight], positions.numel() // positions[dim]))
    if groups > 1:
        dead = join_groups(walk, node, arguments, entering, columns, rows)
    else:
        dead = torch.zeros(1, dtype=torch.bool)
        if entering is not None:
            unread = entering.zero
            if columns is not None:
                facts.unite(entering.labels, columns.labels)
                unread = unread | columns.zero
                dead = entering.zero.all()
            facts.consumed.append((entering.labels, unread))
        if columns is not None and entering is None and walk.shape(source)[dim] > 1:
            facts.keep(columns.labels, f"read channels that cannot be followed, at {node.name}")
        if columns is None and entering is not None:
            facts.keep(entering.labels, f"enter {node.target} with a weight that cannot be followed")
    if rows is None:
        return None
    facts.owned.append((rows.labels, rows.labels))
    silent = facts.own(rows.labels, walk.channels(arguments.get("bias"), 0))
    if silent is None:
        silent = torch.full_like(rows.zero, arguments.get("bias") is None)
    return Axis(rows.labels, (rows.zero | dead) & silent)


def join_groups(
    walk: Walk, node: Node, arguments: Arguments, entering: Axis | None, columns: Axis | None, rows: Axis | None
) -> Tensor:
    """Couple the channels of a grouped convolution; return which outputs read nothing but zeros.

    Many small groups lose whole groups, a depthwise convolution single channels; few large ones lose the same positions
    in every group. In both cases all groups stay equally wide.
    """
    facts, groups = walk.facts, arguments["groups"]
    if entering is None or rows is None:
        for axis in (entering, columns, rows):
            if axis is not None:
                facts.keep(axis.labels, f"are part of a grouped convolution that cannot be followed, {node.name}")
        return torch.zeros(1, dtype=torch.bool)
    inputs, outputs = entering.labels.view(groups, -1), rows.labels.view(groups, -1)
    quiet, removed = entering.zero.view(groups, -1), rows.zero.view(groups, -1)
    if groups >= max(inputs.shape[1], outputs.shape[1]):
        facts.unite(inputs, outputs[:, :1])
        facts.unite(outputs, outputs[:, :1])
        unread = quiet | removed.all(dim=1, keepdim=True)
        if arguments["weight"] in walk.names:
            facts.whole_groups[walk.names[arguments["weight"]]] = outputs.shape[1]
    else:
        facts.unite(inputs, inputs[:1])
        facts.unite(outputs, outputs[:1])
        unread = quiet
        if columns is not None:
            facts.unite(inputs[0], columns.labels)
            unread = quiet | columns.zero
    facts.consumed.append((entering.labels, unread.reshape(-1)))
    return quiet.all(dim=1, keepdim=True).expand(outputs.shape).reshape(-1)


def batch_norm(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow batch norm with its running statistics, an affine map of each channel."""
    channels = walk.channels(arguments["input"], 1)
    statistics = [walk.channels(arguments[key], 0) for key in ("running_mean", "running_var")]
    if channels is None or any(axis is None for axis in statistics):
        return unknown(walk, node, arguments)
    for axis in statistics:
        if axis is not None:
            walk.facts.unite(channels.labels, axis.labels)
    scale = walk.facts.own(channels.labels, walk.channels(arguments["weight"], 0))
    shift = walk.facts.own(channels.labels, walk.channels(arguments["bias"], 0))
    mean, variance, gamma, beta = (
        walk.tensors[walk.names[arguments[key]]] if arguments[key] in walk.names else None
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    zero = torch.zeros_like(channels.zero)
    if mean is not None and variance is not None:
        response = -mean / torch.sqrt(variance + arguments["eps"])  # of a channel that is zero
        response = response if gamma is None else response * gamma
        response = response if beta is None else response + beta
        zero = channels.zero & (response == 0).cpu()
    if scale is not None and shift is not None:
        zero = zero | (scale & shift)
    return [walk.along(node, 1, Axis(channels.labels, zero))]


def prelu(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow PReLU, whose slopes belong to the channels when there is more than one."""
    channels = walk.channels(arguments["self"], 1)
    slopes = walk.channels(arguments["weight"], 0)
    if slopes is not None:
        if channels is None:
            return unknown(walk, node, arguments)
        walk.facts.own(channels.labels, slopes)
    return walk.axes(arguments["self"])


def spatial(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow pooling and resampling, which treat every channel alike and leave it where it is."""
    source = arguments["self"] if "self" in arguments else arguments["input"]
    rank = len(walk.shape(source))
    for axis in walk.axes(source):
        if any(dim >= 2 for dim in axis.dims) and rank > 2:
            return unknown(walk, node, arguments)
    return walk.axes(source)


# Elementwise ----------------------------------------------------------------------------------------------------------


def pointwise(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an elementwise operator of any number of tensors: what stands at one position is one channel."""
    operands = [argument for argument in arguments.values() if isinstance(argument, Node)]
    rank = len(walk.shape(node))
    shapes = [(1,) * (rank - len(walk.shape(operand))) + tuple(walk.shape(operand)) for operand in operands]
    found = [{axis.dims: axis for axis in (axis.aligned(rank) for axis in walk.axes(operand))} for operand in operands]
    result = []
    for dims in dict.fromkeys(dims for axes in found for dims in axes):
        labels = [axes[dims].labels for axes in found if dims in axes]
        for axes, shape in zip(found, shapes, strict=True):
            if dims not in axes and any(shape[dim] > 1 for dim in dims):
                labels.append(torch.tensor(KEPT))
                walk.facts.keep(labels[0], f"meet a tensor that cannot be followed, at {node.name}")
        merged = labels[0]
        if len(labels) > 1:
            merged = walk.facts.fresh(merged.numel()).view(merged.shape)
            for other in labels:
                walk.facts.unite(merged, other)
        zeros = [axes[dims].zero if dims in axes else torch.zeros_like(merged, dtype=torch.bool) for axes in found]
        result.append(Axis(merged, stays_zero(node, arguments, operands, zeros)))
    return result


def stays_zero(node: Node, arguments: Arguments, operands: list[Node], zeros: list[Tensor]) -> Tensor:
    """Return where an elementwise operator gives zero, knowing where its operands are zero."""
    name = node.target._schema.name.removeprefix("aten::").rstrip("_")  # type: ignore[union-attr, operator]
    if name == "mul":
        return torch.stack(zeros).any(dim=0)
    if name == "div" and arguments["self"] in operands:
        return zeros[operands.index(arguments["self"])]
    inputs = {key: torch.zeros(1) if isinstance(value, Node) else value for key, value in arguments.items()}
    maps_zero_to_zero = False
    with contextlib.suppress(Exception):  # an operator that refuses float zeros is one that we know nothing of
        maps_zero_to_zero = bool(node.target(**inputs) == 0)  # type: ignore[operator]
    return torch.stack(zeros).all(dim=0) & maps_zero_to_zero


# Movement -------------------------------------------------------------------------------------------------------------


def reshape(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of shape; channels that it splits into `(outer, inner)` become `inner` ones, in every outer."""
    source, shape = arguments["self"] if "self" in arguments else arguments["input"], walk.shape(node)
    result = []
    for axis in walk.axes(source):
        moved = axis.moved(lambda values: values.reshape(shape), walk.shape(source))
        while len(moved.dims) > len(axis.dims):
            outer = moved.dims[0]
            walk.facts.unite(moved.labels, moved.labels.narrow(outer, 0, 1))
            zero = moved.zero.all(dim=outer, keepdim=True)
            moved = Axis(moved.labels.narrow(outer, 0, 1), zero)
        result.append(moved)
    return result


def permute(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a change of the order of dimensions."""
    others = [value for key, value in arguments.items() if key not in ("self", "input")]
    shape = walk.shape(arguments["self"])
    return [axis.moved(lambda values: node.target(values, *others), shape) for axis in walk.axes(arguments["self"])]  # type: ignore[operator]


def same(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a copy, a change of memory layout or number format, or dropout, which does nothing in eval mode."""
    source = next(value for value in arguments.values() if isinstance(value, Node))
    if source in walk.names:
        walk.names[node] = walk.names[source]
    return walk.axes(source)


def check(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Pass over an assertion that tracing has added."""
    return []


def expand(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a broadcast to a larger shape."""
    return [axis.aligned(len(walk.shape(node))) for axis in walk.axes(arguments["self"])]


def cut(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a cut across dimensions without channels; what cuts or reorders channels keeps them."""
    others = [value for key, value in arguments.items() if key != "self"]
    source = arguments["self"]
    result = []
    for axis in walk.axes(source):
        moved = axis.moved(lambda values: node.target(values, *others), walk.shape(source))  # type: ignore[operator]
        if not torch.equal(moved.labels.reshape(-1), axis.labels.reshape(-1)):
            return walk.keep_inputs(node, f"are cut by {node.target}")
        result.append(moved)
    return result


def chunk(walk: Walk, node: Node, arguments: Arguments) -> Any:
    """Follow a split into equal parts, which all lose the same positions."""
    source, dim, parts = arguments["self"], arguments["dim"], node.meta["val"]
    channels = walk.channels(source, dim)
    if channels is None and not any(dim % len(walk.shape(source)) in axis.dims for axis in walk.axes(source)):
        return [walk.axes(source) for _ in parts]
    if channels is None or len({part.shape[dim] for part in parts}) > 1:
        return walk.keep_inputs(node, f"are cut by {node.target}")
    labels, zeros = channels.labels.view(len(parts), -1), channels.zero.view(len(parts), -1)
    walk.facts.unite(labels, labels[:1])
    shape = [1] * len(walk.shape(source))
    shape[dim] = -1
    return [[Axis(part.view(shape), zero.view(shape))] for part, zero in zip(labels, zeros, strict=True)]


def concatenate(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a concatenation: the channels of each part keep their labels, and those not followed stay."""
    parts, dim = arguments["tensors"], arguments["dim"] % len(walk.shape(node))
    if any(dim in axis.dims and axis.dims != (dim,) for part in parts for axis in walk.axes(part)):
        return unknown(walk, node, arguments)
    result = []
    for dims in dict.fromkeys(axis.dims for part in parts for axis in walk.axes(part)):
        axes = [{axis.dims: axis for axis in walk.axes(part)}.get(dims) for part in parts]
        if dims == (dim,):
            sizes = [walk.shape(part)[dim] for part in parts]
            flat = [walk.channels(part, dim) for part in parts]
            labels = [torch.full((n,), KEPT) if a is None else a.labels for a, n in zip(flat, sizes, strict=True)]
            zeros = [
                torch.zeros(n, dtype=torch.bool) if a is None else a.zero for a, n in zip(flat, sizes, strict=True)
            ]
            result.append(walk.along(node, dim, Axis(torch.cat(labels), torch.cat(zeros))))
        elif any(axis is None for axis in axes):
            return unknown(walk, node, arguments)
        else:
            known = [axis for axis in axes if axis is not None]
            for axis in known[1:]:
                walk.facts.unite(known[0].labels, axis.labels)
            result.append(Axis(known[0].labels, torch.stack([axis.zero for axis in known]).all(dim=0)))
    return result


def pad(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow padding; channels that it adds stay, because their number is written in the model's code."""
    source, amounts, value = arguments["self"], list(arguments["pad"]), arguments["value"] or 0
    constant = arguments.get("mode", "constant") == "constant"
    rank = len(walk.shape(source))
    per_dim = {rank - 1 - i: amounts[2 * i : 2 * i + 2] for i in range(len(amounts) // 2)}
    result = []
    for axis in walk.axes(source):
        touched = [dim for dim in axis.dims if any(per_dim.get(dim, ()))]
        if touched and (len(axis.dims) > 1 or min(per_dim[touched[0]]) < 0 or not constant):
            return unknown(walk, node, arguments)
        labels, zero = axis.labels.reshape(-1), axis.zero.reshape(-1)
        if touched:
            labels = torch.nn.functional.pad(labels, per_dim[touched[0]], value=KEPT)
            zero = torch.nn.functional.pad(zero, per_dim[touched[0]], value=True)
        if constant and value != 0:
            zero = torch.zeros_like(zero)
        shape = list(axis.labels.shape)
        if touched:
            shape[touched[0]] = -1
        result.append(Axis(labels.view(shape), zero.view(shape)))
    return result


def reduce(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a mean, sum or extremum over dimensions without channels; one over channels keeps them."""
    source = arguments["self"]
    rank = len(walk.shape(source))
    dims = arguments.get("dim")
    reduced = set(range(rank)) if dims is None else {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}
    for axis in walk.axes(source):
        if reduced.intersection(axis.dims):
            return walk.keep_inputs(node, f"are reduced by {node.target}")
    kept = [dim for dim in range(rank) if arguments.get("keepdim") or dim not in reduced]

    def drop(values: Tensor) -> Tensor:
        return values.reshape([values.shape[dim] for dim in kept])

    return [Axis(drop(axis.labels), drop(axis.zero)) for axis in walk.axes(source)]


def index_select(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a gather of channels by an index buffer, which slimming rewrites.

    An output channel is the input channel that it reads. One that reads a channel which is always zero is nobody
    else's, and can be removed on its own.
    """
    source, dim, index = arguments["self"], arguments["dim"], arguments["index"]
    channels, reading = walk.channels(source, dim), walk.channels(index, 0)
    if channels is None or reading is None or index not in walk.names:
        return unknown(walk, node, arguments)
    order = walk.tensors[walk.names[index]].long().cpu()
    reads = ~(channels.zero & (channels.labels == KEPT))[order]
    walk.facts.unite(reading.labels[reads], channels.labels[order][reads])
    walk.facts.gathers.append(Gather(walk.names[index], channels.labels))
    return [walk.along(node, dim, Axis(reading.labels, channels.zero[order]))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    "linear": linear,
    "batch_norm": batch_norm,
    "prelu": prelu,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"), spatial),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), spatial),
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), spatial),
    **dict.fromkeys(("hardswish", "where"), pointwise),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"), reshape),
    **dict.fromkeys(("permute", "transpose", "t", "numpy_T", "movedim"), permute),
    **dict.fromkeys(("contiguous", "clone", "alias", "detach", "to", "_to_copy", "type_as"), same),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout"), same),
    **dict.fromkeys(("_assert_tensor_metadata", "_assert_async"), check),
    **dict.fromkeys(("expand", "expand_as"), expand),
    **dict.fromkeys(("slice", "select", "narrow", "roll", "flip"), cut),
    "chunk": chunk,
    "cat": concatenate,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), reduce),
    "index_select": index_select,
}
