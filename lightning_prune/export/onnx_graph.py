"""What the operators for rounded numbers are in ONNX, and a graph in which engines find the integers."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from onnxscript import ir, opset20
from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

# For their operators.
import lightning_prune.quantization  # noqa: F401

OPSET = 20
"""The version of the operators that files are written in."""

_KEEPING = frozenset({"Flatten", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that move numbers and can move their codes just as well."""


def translations() -> dict[Any, Callable[..., Any]]:
    """Return what the exporter is to write for the operators of this package."""
    ops = torch.ops.lightning_prune
    return {ops.fake_quantize.default: _fake_quantize, ops.dequantize.default: _dequantize}


def _fake_quantize(x: Any, scale: Any, zero_point: Any, low: int, high: int) -> Any:
    codes = opset20.QuantizeLinear(x, scale, zero_point)
    if (low, high) != (0, 255):
        bounds = [_constant(np.array(bound, np.uint8)) for bound in (low, high)]
        codes = opset20.Clip(codes, *bounds)
    return opset20.DequantizeLinear(codes, scale, zero_point)


def _dequantize(codes: Any, scale: Any, axis: int) -> Any:
    # A zero-point may be left out in ONNX, but onnxruntime 1.32 then leaves linear layers in float.
    zeros = np.zeros(codes.shape[axis], codes.dtype.numpy())
    return opset20.DequantizeLinear(codes, scale, _constant(zeros), axis=axis)


def _constant(array: Any) -> Any:
    proto: TensorProto = numpy_helper.from_array(array)
    return opset20.Constant(value=proto)


def keep_integers(model: ir.Model) -> None:
    """Let what only moves numbers move their codes, so that integers stay integers between the layers, in place.

    Engines look for a `DequantizeLinear` right in front of a layer or a sum and a `QuantizeLinear` right behind it.
    Where anything else stands between, such as the padding of a shortcut, they compute in float.
    """
    for node in list(model.graph):
        source = _dequantized(node.inputs[0]) if node.inputs else None
        if source is None:
            continue
        if node.op_type in _KEEPING and _pads_zeros(node):
            _on_codes(node, source)
        elif node.op_type == "Gather":
            _as_convolution(node, source)
        elif node.op_type == "ReduceMean":
            _as_pooling(node)
        elif node.op_type == "QuantizeLinear" and _same(node, source):
            codes = source.inputs[0]
            assert codes is not None
            node.outputs[0].replace_all_uses_with(codes)
    RemoveUnusedNodesPass()(model)


def show(model: ir.Model, names: Collection[str]) -> list[str]:
    """Make tensors of these names outputs too, behind the others; return the names of those that were found."""
    outputs = set(model.graph.outputs)
    shown = [value for node in model.graph for value in node.outputs if value.name in names and value not in outputs]
    model.graph.outputs.extend(shown)
    return [str(value.name) for value in shown]


def hide(model: ir.Model, count: int) -> None:
    """Take the last `count` outputs away again, and what computes nothing else."""
    del model.graph.outputs[len(model.graph.outputs) - count :]
    RemoveUnusedNodesPass()(model)


def forget_origin(model: ir.Model) -> None:
    """Take away what the exporter notes of each operator: its lines of source, with the paths of this machine."""
    ClearMetadataAndDocStringPass()(model)


def in_bytes(model: ir.Model) -> bytes:
    """Return what a file of the model would hold."""
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def _dequantized(value: ir.Value | None) -> ir.Node | None:
    """Return the node that turns codes with one scale into a value, None if it is no such value."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    scale = _array(node.inputs[1])
    return node if scale is not None and scale.ndim == 0 else None


def _array(value: ir.Value | None) -> Any:
    """Return a constant as an array, None if it is none."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _same(quantize: ir.Node, source: ir.Node) -> bool:
    """Return whether rounding again changes nothing."""
    pairs = [(_array(quantize.inputs[i]), _array(source.inputs[i])) for i in (1, 2)]
    return all(one is not None and other is not None and bool(one == other) for one, other in pairs)


def _pads_zeros(node: ir.Node) -> bool:
    if node.op_type != "Pad":
        return True
    mode = node.attributes.get_string("mode", "constant")
    value = node.inputs[2] if len(node.inputs) > 2 else None
    return mode == "constant" and (value is None or (_array(value) is not None and float(_array(value)) == 0.0))


def _replace(node: ir.Node, new: list[ir.Node]) -> None:
    """Put nodes in the place of one; the output of the last is its output."""
    old, value = node.outputs[0], new[-1].outputs[0]
    value.name, value.shape, value.type = old.name, old.shape, old.type
    graph = node.graph
    assert graph is not None
    graph.insert_before(node, new)
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _on_codes(node: ir.Node, source: ir.Node) -> None:
    codes, *grid = source.inputs
    inputs = [codes, *node.inputs[1:]]
    if node.op_type == "Pad":
        inputs[2:3] = [grid[1]]
    moved = ir.node(node.op_type, inputs, node.attributes)
    _replace(node, [moved, ir.node("DequantizeLinear", [moved.outputs[0], *grid])])


def _as_convolution(node: ir.Node, source: ir.Node) -> None:
    """Pick channels with a 1x1 convolution of ones and zeros, which is exact.

    Behind a `Gather`, onnxruntime changes the layout of the images around every layer that follows.
    """
    index, shape = _array(node.inputs[1]), None if node.inputs[0] is None else node.inputs[0].shape
    channels = shape[1] if shape is not None and len(shape) == 4 else None
    if index is None or index.ndim != 1 or node.attributes.get_int("axis", 0) != 1 or not isinstance(channels, int):
        return
    assert node.graph is not None
    one_hot = np.eye(channels, dtype=np.int8)[index][:, :, None, None]
    weight = {"codes": one_hot, "scale": np.ones(len(index), np.float32), "zero_point": np.zeros(len(index), np.int8)}
    held = [_initializer(node.graph, f"{node.outputs[0].name}_{part}", array) for part, array in weight.items()]
    _, *grid = source.inputs
    ones = ir.node("DequantizeLinear", held, {"axis": 0})
    picked = ir.node("Conv", [node.inputs[0], ones.outputs[0]], {"kernel_shape": [1, 1]})
    codes = ir.node("QuantizeLinear", [picked.outputs[0], *grid])
    _replace(node, [ones, picked, codes, ir.node("DequantizeLinear", [codes.outputs[0], *grid])])


def _initializer(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    tensor = ir.tensor(array)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _as_pooling(node: ir.Node) -> None:
    """Average images with the operator that has an integer kernel."""
    value, axes = node.inputs[0], _array(node.inputs[1]) if len(node.inputs) > 1 else None
    if value is None or value.shape is None or len(value.shape) != 4 or axes is None:
        return
    if sorted(int(axis) % 4 for axis in axes) != [2, 3]:
        return
    new = [ir.node("GlobalAveragePool", [value])]
    if not node.attributes.get_int("keepdims", 1):
        new.append(ir.node("Squeeze", [new[0].outputs[0], node.inputs[1]]))
    _replace(node, new)
