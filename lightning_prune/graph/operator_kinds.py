"""What the operators of ATen do to their inputs: one table for all that follow a graph."""

from collections.abc import Iterable
from enum import Flag

import torch
from torch import Tensor
from torch.fx import Node

from lightning_prune.graph.dataflow import Arguments, called


class Kind(Flag):
    """What an operator does, with the numbers and shapes that it is told; an operator may be of several kinds."""

    HOMOGENEOUS = 1
    """It gives m times as much for m times its first tensor, for any m >= 0, in training mode too."""
    SAME_NUMBERS = 2
    """Each number that it gives in eval mode is one of its first tensor's, or zero: rounded, they are rounded."""
    MOVES = 4 | HOMOGENEOUS | SAME_NUMBERS
    """It gives its first tensor's numbers other places; it may repeat some, leave some out, and put zeros between."""
    COPIES = 8 | MOVES
    """It leaves every number where it is, counted from the last dimension, and may repeat all along a dimension."""
    RESHAPES = 16 | MOVES
    """It gives all numbers in the same order, in another shape."""
    REARRANGES = 32 | MOVES
    """It gives every number, in another order or repeated; what it is told is no size of its input."""
    SPATIAL = 64
    """It treats every channel alike, for itself, along as many last dimensions as its name tells: `max_pool2d`."""
    ELEMENTWISE = 128
    """What it gives at a position depends on what its tensors hold at this position alone."""
    LAYER = 256
    """It is linear in its input and in its weight, and adds a bias."""
    NORM = 512
    """It is linear in its weight, adds a bias, and takes no notice of how large its input is."""
    CHANNEL_NORM = 1024 | NORM
    """It normalizes each channel by itself."""
    PRODUCT = 2048
    """It is homogeneous in each of its two tensors."""
    JOINT = 4096
    """It is homogeneous in all its tensors together."""
    ACTIVATION = 8192
    """What it gives tells how active a channel is; a sigmoid is as often a gate for other channels."""
    NOT_NEGATIVE = 16384
    """It gives no number below zero, whatever it is told."""


_TABLE: tuple[tuple[Kind, Iterable[str]], ...] = (
    (Kind.RESHAPES, ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")),
    (Kind.RESHAPES, ("view_as", "reshape_as")),
    (Kind.REARRANGES, ("permute", "transpose", "t", "numpy_T", "mT", "movedim", "moveaxis", "swapaxes", "swapdims")),
    (Kind.REARRANGES, ("flip", "repeat", "tile", "repeat_interleave")),
    (Kind.COPIES, ("contiguous", "clone", "alias", "detach", "to", "_to_copy", "type_as", "lift_fresh_copy")),
    (Kind.COPIES, ("expand", "expand_as")),
    (Kind.MOVES, ("slice", "narrow", "select", "unbind", "chunk", "split", "split_with_sizes", "tensor_split")),
    (Kind.MOVES, ("getitem", "index_select", "roll", "pad", "constant_pad_nd")),
    (Kind.MOVES, ("channel_shuffle", "pixel_shuffle", "pixel_unshuffle")),
    (Kind.HOMOGENEOUS | Kind.SAME_NUMBERS, ("dropout", "feature_dropout")),
    (Kind.SAME_NUMBERS, ("alpha_dropout",)),
    (Kind.SPATIAL | Kind.HOMOGENEOUS | Kind.SAME_NUMBERS, (f"max_pool{rank}d" for rank in "123")),
    (Kind.SPATIAL | Kind.HOMOGENEOUS | Kind.SAME_NUMBERS, (f"adaptive_max_pool{rank}d" for rank in "123")),
    (Kind.SPATIAL | Kind.HOMOGENEOUS | Kind.SAME_NUMBERS, (f"upsample_nearest{rank}d" for rank in "123")),
    (Kind.SPATIAL | Kind.HOMOGENEOUS, (f"avg_pool{rank}d" for rank in "123")),
    (Kind.SPATIAL | Kind.HOMOGENEOUS, (f"adaptive_avg_pool{rank}d" for rank in "123")),
    (Kind.SPATIAL | Kind.HOMOGENEOUS, ("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d")),
    (Kind.SPATIAL | Kind.HOMOGENEOUS, ("upsample_trilinear3d",)),
    (Kind.HOMOGENEOUS, ("mean", "sum", "amax", "amin")),
    (Kind.ELEMENTWISE | Kind.HOMOGENEOUS, ("abs", "neg", "div")),
    (Kind.ELEMENTWISE | Kind.HOMOGENEOUS | Kind.ACTIVATION | Kind.NOT_NEGATIVE, ("relu",)),
    (Kind.ELEMENTWISE | Kind.HOMOGENEOUS | Kind.ACTIVATION, ("leaky_relu", "rrelu")),
    (Kind.HOMOGENEOUS | Kind.ACTIVATION, ("prelu",)),
    (Kind.ELEMENTWISE | Kind.ACTIVATION, ("hardtanh", "elu", "selu", "celu", "gelu", "silu", "mish")),
    (Kind.ELEMENTWISE | Kind.ACTIVATION, ("hardswish", "softplus", "tanh")),
    (Kind.ELEMENTWISE | Kind.ACTIVATION | Kind.NOT_NEGATIVE, ("relu6",)),
    (Kind.ELEMENTWISE | Kind.NOT_NEGATIVE, ("sigmoid", "hardsigmoid")),
    (Kind.NOT_NEGATIVE, ("softmax",)),
    (Kind.ELEMENTWISE, ("where",)),
    (Kind.LAYER, ("linear", *(f"conv{rank}d" for rank in "123"), *(f"conv_transpose{rank}d" for rank in "123"))),
    (Kind.CHANNEL_NORM, ("batch_norm", "instance_norm")),
    (Kind.NORM, ("group_norm", "layer_norm", "rms_norm")),
    (Kind.PRODUCT | Kind.ELEMENTWISE, ("mul",)),
    (Kind.PRODUCT, ("matmul", "bmm", "mm")),
    (Kind.JOINT | Kind.ELEMENTWISE, ("add", "sub", "maximum", "minimum")),
    (Kind.JOINT, ("cat", "concat", "concatenate", "stack")),
)

KINDS: dict[str, Kind] = {name: kind for kind, names in _TABLE for name in names}
"""The kinds of operators by name, that of `called`; one that is not named does none of this, as far as is known."""


def is_kind(node: Node, kind: Kind) -> bool:
    """Return whether a node's operator is of a kind; of all of them if these are several.

    >>> graph = torch.fx.Graph()
    >>> is_kind(graph.call_function(torch.ops.aten.mT.default, (graph.placeholder("x"),)), Kind.SAME_NUMBERS)
    True
    """
    if kind is Kind.ELEMENTWISE and isinstance(node.target, torch._ops.OpOverload):
        return torch.Tag.pointwise in node.target.tags or kind in KINDS.get(called(node), Kind(0))
    return kind in KINDS.get(called(node), Kind(0))


def operators(kind: Kind) -> list[str]:
    """Return the names of the operators of a kind."""
    return [name for name, kinds in KINDS.items() if kind in kinds]


def keeps_zero(node: Node, arguments: Arguments) -> bool:
    """Return whether an elementwise operator gives zero where all its tensors are zero, found by running it.

    Args:
        node: A call of the operator.
        arguments: Its arguments.
    """
    operator = node.target
    assert isinstance(operator, torch._ops.OpOverload)
    inputs = {
        key: torch.zeros(1, dtype=value.meta["val"].dtype) if isinstance(value, Node) else value
        for key, value in arguments.items()
    }
    try:
        output = operator(**inputs)
    except RuntimeError:  # torch's own refusal, of integers that are divided by zero for example
        return False
    return isinstance(output, Tensor) and bool(output == 0)
