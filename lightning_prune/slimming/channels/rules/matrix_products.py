"""Rules of operators that mix positions of their inputs: products of matrices, attention, normalizations of groups."""

import torch
from torch.fx import Node

from lightning_prune.graph import Arguments
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed
from lightning_prune.slimming.channels.rules.layers import contract, shifted


def add_matrix_product(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow `bias + x @ weight`, a linear layer whose weight is `(in, out)`."""
    if arguments["beta"] != 1 or arguments["alpha"] != 1 or walk.origin(arguments["mat2"]) is None:
        raise NotFollowed
    return _layer(walk, node, arguments["mat1"], arguments["mat2"], arguments["self"])


def matrix_product(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow the product of two matrices, or of batches of them; one by a stored matrix is a linear layer.

    Heads of attention lie on the batch dimensions. What differs within a head is one.
    """
    left = arguments["self"]
    right = arguments["other"] if "other" in arguments else arguments["mat2"]
    if walk.origin(right) is not None and len(walk.shape(right)) == 2:
        return _layer(walk, node, left, right, None)
    if min(len(walk.shape(left)), len(walk.shape(right))) < 2:
        raise NotFollowed
    columns, rows = _across(walk, left, -1), _across(walk, right, -2)
    if columns is not None and rows is not None:
        walk.facts.unite(columns.labels, rows.labels)
        walk.facts.consumed.append((columns.labels, columns.zero | rows.zero, node))
    for axis in (columns, rows):
        if axis is not None and (columns is None or rows is None):
            walk.facts.keep(axis.labels, f"are multiplied with what cannot be followed, at {node.name}")
    result = [axis for axis in (_across(walk, left, -2), _across(walk, right, -1)) if axis is not None]
    heads = _batch(walk, node, [left, right])
    for axis in result if heads else ():
        walk.facts.keep(axis.labels, "are the same for all heads")
    return heads or result


def attention(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow scaled dot-product attention: whole heads stay or go."""
    sources = [arguments["query"], arguments["key"], arguments["value"]]
    if arguments["attn_mask"] is not None:
        sources.append(arguments["attn_mask"])
    for source in sources:
        for dim in (-1, -2):
            if (axis := _across(walk, source, dim)) is not None:
                walk.facts.keep(axis.labels, f"are mixed by {node.target}")
    heads = {walk.shape(source)[:-2] for source in sources[:3]}
    if len(heads) > 1:
        raise NotFollowed
    return _batch(walk, node, sources, made_of=2)


def _layer(walk: ChannelWalk, node: Node, source: Node, weight: Node, bias: Node | None) -> list[Axis]:
    """Follow a linear layer whose weight is `(in, out)`."""
    made = contract(walk, node, {"input": source, "weight": weight, "bias": None}, dim=-1, out_dim=1)
    others = [axis for axis in walk.axes(source) if -1 not in axis.dims]
    if bias is not None:
        others = [Axis(axis.dim, axis.labels, torch.zeros_like(axis.zero)) for axis in others]
    if made is None:
        return others
    walk.facts.filters.append(made.labels)
    return [*others, shifted(walk, node, made, bias)]


def _across(walk: ChannelWalk, source: Node, dim: int) -> Axis | None:
    """Return the channels of a matrix along one of its two dimensions, if they vary along nothing else."""
    return next((axis for axis in walk.axes(source) if axis.dims == [dim]), None)


def _batch(walk: ChannelWalk, node: Node, sources: list[Node], made_of: int | None = None) -> list[Axis]:
    """Follow the batch dimensions of matrices that are multiplied.

    Args:
        walk: The walk.
        node: The product.
        sources: The matrices.
        made_of: Which of them alone makes the product zero; None if any does.
    """
    found = [[walk.united(axis, (-1, -2)) for axis in walk.axes(s) if set(axis.dims) - {-1, -2}] for s in sources]
    axes = [[axis for axis in each if axis is not None] for each in found]
    result = []
    for dims in {tuple(axis.dims) for each in axes for axis in each}:
        same = [next((axis for axis in each if tuple(axis.dims) == dims), None) for each in axes]
        known = [axis for axis in same if axis is not None]
        constant = [all(-dim > len(walk.shape(s)) or walk.shape(s)[dim] == 1 for dim in dims) for s in sources]
        if any(axis is None and not fixed for axis, fixed in zip(same, constant, strict=True)):
            for axis in known:
                walk.facts.keep(axis.labels, f"meet heads that cannot be followed, at {node.name}")
            continue
        labels = walk.facts.fresh(known[0].labels.numel()).view(known[0].labels.shape)
        for axis in known:
            walk.facts.unite(labels, axis.labels)
        zeros = [axis.zero if axis is not None else torch.zeros_like(known[0].zero) for axis in same]
        zero = torch.stack(zeros).any(dim=0) if made_of is None else zeros[made_of]
        result.append(Axis(known[0].dim, labels, zero))
    return result


def layer_norm(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a layer norm or RMS norm: the channels across it stay; where they lie in heads, heads stay whole."""
    mixed = range(-len(arguments["normalized_shape"]), 0)
    for key in ("weight", "bias"):
        for axis in walk.axes(arguments.get(key)):
            walk.facts.keep(axis.labels, "lie across a layer norm")
    silent = arguments.get("bias") is None
    result = []
    for axis in walk.axes(arguments["input"]):
        if set(axis.dims) <= set(mixed):
            walk.facts.keep(axis.labels, "lie across a layer norm")
        elif (left := walk.united(axis, mixed)) is not None:
            result.append(Axis(left.dim, left.labels, left.zero & silent))
    return result


def group_norm(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a group norm: whole groups stay or go; the channels across a single group stay."""
    source, groups = arguments["input"], arguments["num_groups"]
    channels = walk.only(source, 1)
    found = {key: walk.channels(arguments[key], 0) for key in ("weight", "bias") if arguments[key] is not None}
    known = {key: axis for key, axis in found.items() if axis is not None}
    name = walk.origin(arguments["weight"]) if arguments["weight"] is not None else None
    if channels is None or len(known) < len(found) or name is None:
        raise NotFollowed
    if groups == 1:
        raise NotFollowed("lie across a layer norm")
    labels = channels.labels.view(groups, -1)
    walk.facts.unite(labels, labels[:, :1])
    walk.facts.whole_groups[name] = labels.shape[1]
    for key, axis in known.items():
        walk.facts.own(channels.labels, axis, "scale" if key == "weight" else "shift")
    quiet = channels.zero.view(groups, -1).all(dim=1, keepdim=True).expand(labels.shape).reshape(-1)
    zero = quiet & (known["bias"].zero if "bias" in known else True)
    if "bias" in known:
        zero = zero | (known["weight"].zero & known["bias"].zero)
    return [Axis(channels.dim, channels.labels, zero)]


def einsum(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an Einstein sum of one or two tensors."""
    equation, operands = arguments["equation"].replace(" ", ""), arguments["tensors"]
    entering, _, leaving = equation.partition("->")
    letters = entering.split(",")
    if not leaving or "." in equation or len(operands) > 2 or any(len(set(each)) < len(each) for each in letters):
        raise NotFollowed
    found: dict[str, list[Axis]] = {}
    for operand, own in zip(operands, letters, strict=True):
        outer = set(own).intersection(leaving, *letters)
        for axis in walk.axes(operand):
            names = "".join(own[dim] for dim in axis.dims)
            if not axis.is_line:
                inner = [dim for dim in axis.dims if own[dim] not in outer]
                left = walk.united(axis, inner) if outer & set(names) else None
                if left is None or not left.is_line:
                    walk.facts.keep(axis.labels, f"are mixed by {node.target}")
                    continue
                axis, names = left, own[left.dim]
            found.setdefault(names, []).append(axis)
    result = []
    for letter, axes in found.items():
        if len(axes) < sum(letter in own for own in letters):
            walk.facts.keep(axes[0].labels, f"are multiplied with what cannot be followed, at {node.name}")
            continue
        zero = torch.stack([axis.zero for axis in axes]).any(dim=0)
        labels = axes[0].labels
        for axis in axes[1:]:
            walk.facts.unite(labels, axis.labels)
        if letter not in leaving:
            walk.facts.consumed.append((labels, zero, node))
        else:
            result.append(Axis(leaving.index(letter) - len(leaving), labels, zero))
    return result


RULES = {
    **dict.fromkeys(("matmul", "bmm", "mm"), matrix_product),
    "addmm": add_matrix_product,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
}
