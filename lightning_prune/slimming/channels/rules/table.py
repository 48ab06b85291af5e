"""Which rule each ATen operator follows."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from lightning_prune.graph import Arguments, arguments_of, called, is_view
from lightning_prune.slimming.channels.channel_walk import Walk
from lightning_prune.slimming.channels.labels import Axis
from lightning_prune.slimming.channels.rules.elementwise import pointwise
from lightning_prune.slimming.channels.rules.indexing import embedding, gather, index_select
from lightning_prune.slimming.channels.rules.layers import convolution, linear, normalization, prelu, spatial
from lightning_prune.slimming.channels.rules.matrix_products import (
    add_matrix_product,
    attention,
    einsum,
    group_norm,
    layer_norm,
    matrix_product,
)
from lightning_prune.slimming.channels.rules.rearranging import (
    filled,
    nothing,
    pad,
    permute,
    reshape,
    roll,
    same,
    zeros_like,
)
from lightning_prune.slimming.channels.rules.reducing import add_up, reduce, softmax
from lightning_prune.slimming.channels.rules.shuffling import (
    channel_shuffle,
    from_patches,
    patches,
    pixel_shuffle,
    pixel_unshuffle,
)
from lightning_prune.slimming.channels.rules.splitting import chunk, concatenate, cut, gate, select, stack, unbind

log = logging.getLogger(__name__)

Rule = Callable[[Walk, Node, Arguments], Any]
"""From the walk, a node and its arguments by schema name to the axes of the output, a list of such for several."""

RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), convolution),
    "linear": linear,
    **dict.fromkeys(("batch_norm", "instance_norm"), normalization),
    "prelu": prelu,
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"), spatial),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), spatial),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), spatial),
    **dict.fromkeys(("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"), spatial),
    **dict.fromkeys(("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"), spatial),
    "upsample_trilinear3d": spatial,
    **dict.fromkeys(("hardswish", "where"), pointwise),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"), reshape),
    **dict.fromkeys(("view_as", "reshape_as"), reshape),
    **dict.fromkeys(("permute", "transpose", "t", "numpy_T", "mT", "movedim", "flip", "repeat"), permute),
    **dict.fromkeys(("swapaxes", "swapdims", "moveaxis", "tile", "repeat_interleave"), permute),
    **dict.fromkeys(("contiguous", "clone", "alias", "detach", "to", "_to_copy", "type_as", "lift_fresh_copy"), same),
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "expand", "expand_as"), same),
    **dict.fromkeys(("zeros_like", "zero"), zeros_like),
    "fill": filled,
    **dict.fromkeys(
        ("_assert_tensor_metadata", "_assert_async", "new_zeros", "new_ones", "new_full", "new_empty"), nothing
    ),
    **dict.fromkeys(("ones_like", "full_like", "empty_like", "rand_like", "randn_like"), nothing),
    **dict.fromkeys(("slice", "narrow"), cut),
    "select": select,
    "unbind": unbind,
    "roll": roll,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), chunk),
    "glu": gate,
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenate),
    "stack": stack,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
    **dict.fromkeys(("mean", "std", "var", "amax", "amin", "max", "min"), reduce),
    **dict.fromkeys(("sum", "norm", "linalg_vector_norm"), add_up),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax"), softmax),
    "index_select": index_select,
    "index": gather,
    "embedding": embedding,
    "channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": patches,
    "col2im": from_patches,
    **dict.fromkeys(("matmul", "bmm", "mm"), matrix_product),
    "addmm": add_matrix_product,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    "group_norm": group_norm,
}

ACTIVATIONS = {
    *("relu", "hardtanh", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu"),
    *("gelu", "silu", "mish", "hardswish", "softplus", "softsign", "tanh"),
}
"""Operators whose outputs tell how active a channel is; a sigmoid is as often a gate for other channels."""


def visit(walk: Walk, node: Node) -> None:
    """Apply the rule of a node's operator; one without a rule keeps every channel that enters it."""
    if not isinstance(node.target, torch._ops.OpOverload):
        walk.values[node] = _output(walk, node)
        return
    name = called(node)
    rule = RULES.get(name, pointwise if torch.Tag.pointwise in node.target.tags else None)
    if name in ("max", "min") and node.target._overloadname == "other":
        rule = pointwise
    try:
        walk.values[node] = rule(walk, node, arguments_of(node)) if rule else walk.keep_inputs(node)
    except Exception as error:  # an overload that its rule was not made for: its channels stay, and the rest goes on
        log.debug("%s: %s", node.target, error, exc_info=True)
        walk.values[node] = walk.keep_inputs(node)
    if name in ACTIVATIONS:
        walk.facts.activations += [(node, axis) for axis in walk.axes(node) if axis.is_line]
    if node.target._schema.is_mutable:
        _overwrite(walk, node.args[0], walk.values[node])


def _output(walk: Walk, node: Node) -> list[Axis]:
    """Return the axes of one output of an operator with several; keep what enters anything else."""
    if getattr(node.target, "__name__", "") != "getitem":
        return walk.keep_inputs(node)
    source: Any = node.args[0]
    outputs = walk.values.get(source, [])
    return outputs[node.args[1]] if outputs and isinstance(outputs[0], list) else []


def _overwrite(walk: Walk, written: Any, value: list[Axis]) -> None:
    """Note what an operator has written into a tensor, and what is no longer zero in those that share its memory."""
    zeros = {axis.dim: axis.zero for axis in value}
    still_zero = all(bool((axis.zero <= zeros.get(axis.dim, False)).all()) for axis in walk.axes(written))
    walk.values[written] = value
    while not still_zero and is_view(written):
        written = written.args[0]
        walk.values[written] = [Axis(a.dim, a.labels, torch.zeros_like(a.zero)) for a in walk.axes(written)]
