"""Rules of elementwise operators."""

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from lightning_prune.axes import Axis
from lightning_prune.walk import KEPT, Arguments, Walk


def pointwise(walk: Walk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an elementwise operator of any number of tensors: what stands at one position is one channel."""
    operands = [argument for argument in arguments.values() if isinstance(argument, Node)]
    shapes = [walk.shape(operand) for operand in operands]
    found = [{axis.dim: axis for axis in walk.axes(operand)} for operand in operands]
    result = []
    for dim in dict.fromkeys(dim for axes in found for dim in axes):
        labels = [axes[dim].labels for axes in found if dim in axes]
        for axes, shape in zip(found, shapes, strict=True):
            if dim not in axes and len(shape) >= -dim and shape[dim] > 1:
                labels.append(torch.tensor([KEPT]))
                walk.facts.keep(labels[0], f"meet a tensor that cannot be followed, at {node.name}")
        merged = labels[0]
        if len(labels) > 1:
            # New labels, because what an operator makes of two channels is neither of them.
            merged = walk.facts.fresh(len(merged))
            for other in labels:
                walk.facts.unite(merged, other)
        unknown = torch.zeros(len(merged), dtype=torch.bool)
        zeros = [axes[dim].zero if dim in axes else unknown for axes in found]
        result.append(Axis(dim, merged, stays_zero(node, arguments, operands, zeros)))
    return result


def stays_zero(node: Node, arguments: Arguments, operands: list[Node], zeros: list[Tensor]) -> Tensor:
    """Return where an elementwise operator gives zero, knowing where its operands are zero."""
    operator: Any = node.target
    name = operator._schema.name.removeprefix("aten::").rstrip("_")
    if name == "mul":
        return torch.stack(zeros).any(dim=0)
    if name == "div" and arguments["self"] in operands:
        return zeros[operands.index(arguments["self"])]
    inputs = {
        key: torch.zeros(1, dtype=value.meta["val"].dtype) if isinstance(value, Node) else value
        for key, value in arguments.items()
    }
    maps_zero_to_zero = False
    with contextlib.suppress(Exception):  # an operator that refuses this call is one that we know nothing of
        maps_zero_to_zero = bool(operator(**inputs) == 0)
    return torch.stack(zeros).all(dim=0) & maps_zero_to_zero
