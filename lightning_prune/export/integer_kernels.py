"""Layers and pooling of ONNX on integers: each says on what grid its result lies, and how to compute it."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from lightning_prune.export.fixed_point import Integers
from lightning_prune.export.integer_operand import MOST, Compute, Grid, Operator, OperatorCall


def _windows(x: Integers, call: OperatorCall, kernel: Sequence[int], fill: int) -> Integers:
    """Return what a kernel sees at each place, `(B, C, *places, *kernel)`."""
    dims = len(kernel)
    pads = call.attributes.get("pads", [0] * 2 * dims)
    dilations = call.attributes.get("dilations", [1] * dims)
    strides = call.attributes.get("strides", [1] * dims)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:dims], pads[dims:], strict=True)], constant_values=fill)
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    seen = sliding_window_view(x, spans, axis=tuple(range(2, 2 + dims)))
    return seen[(slice(None), slice(None), *(slice(None, None, step) for step in (*strides, *dilations)))]


def _products(
    call: OperatorCall, scale: NDArray[np.float64], offsets: Integers, inputs: tuple[int, ...]
) -> tuple[NDArray[np.int32] | int, Grid]:
    """Return the bias of a layer in steps of its products, and the grid of their sum.

    Args:
        call: The layer; operand 2 is the bias, if it has one.
        scale: Of the weight, in a shape that broadcasts over the output.
        offsets: The weight's distances to its zero-point.
        inputs: The weight's dimensions over which the layer sums.
    """
    reads = call.single(0)
    grid = Grid(reads.scale * scale, 0, MOST)
    sums = reads.most * np.abs(offsets.astype(np.int64)).sum(inputs)
    if not call.has(2):
        return 0, grid._replace(most=call.fits(int(sums.max())))
    biased, bias = call.real(2), call.constant(2).astype(np.int32)
    if biased.zero_point or not np.allclose(biased.scale.ravel(), grid.scale.ravel(), rtol=1e-6, atol=0.0):
        call.refuse("a bias in steps of the input times the weight, with zero-point 0", "another grid")
    return bias, grid._replace(most=call.fits(int((sums + np.abs(bias.astype(np.int64))).max())))


def _by_output(call: OperatorCall, scale: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the scales of a weight along its dimension of outputs, `(O,)` or `(1,)`."""
    if scale.ndim and scale.shape[axis] == 1:
        call.refuse("a scale for each output of the weight", "scales along another dimension")
    return scale.reshape(-1)


def _convolution(call: OperatorCall) -> tuple[Compute, Grid]:
    call.needs("auto_pad", b"NOTSET")
    reads, held = call.single(0), call.real(1)
    weight = held.offsets(call.constant(1))
    outputs, kernel, group = len(weight), weight.shape[2:], call.attributes.get("group", 1)
    scale = _by_output(call, held.scale, 0).reshape(-1, *[1] * len(kernel))
    bias, grid = _products(call, scale, weight, tuple(range(1, weight.ndim)))
    rows = weight.reshape(group, outputs // group, -1)
    column = bias if isinstance(bias, int) else bias.reshape(-1, *[1] * len(kernel))

    def compute(x: Integers, *_: Integers | None) -> Integers:
        seen = _windows(reads.offsets(x), call, kernel, 0)
        batch, channels, *places = seen.shape[: 2 + len(kernel)]
        grouped = seen.reshape(batch, group, channels // group, *places, *kernel)
        columns = np.moveaxis(grouped, 2, 2 + len(kernel)).copy().reshape(batch, group, math.prod(places), -1)
        summed: Integers = np.einsum("bgpi,goi->bgop", columns, rows)
        return summed.reshape(batch, outputs, *places) + column

    return compute, grid


def _gemm(call: OperatorCall) -> tuple[Compute, Grid]:
    call.needs("alpha", 1.0)
    call.needs("beta", 1.0)
    call.needs("transA", 0)
    return _linear(call, bool(call.attributes.get("transB", 0)))


def _linear(call: OperatorCall, transposed: bool = False) -> tuple[Compute, Grid]:
    reads, held = call.single(0), call.real(1)
    weight, scale = held.offsets(call.constant(1)), held.scale
    if weight.ndim != 2:
        call.refuse("a matrix as weight", f"{weight.ndim} dimensions")
    if transposed:
        weight, scale = weight.T, scale.T
    bias, grid = _products(call, _by_output(call, scale, -1), weight, (0,))
    rows = np.ascontiguousarray(weight.T)
    return lambda x, *_: np.einsum("...i,oi->...o", reads.offsets(x), rows) + bias, grid


# Pooling --------------------------------------------------------------------------------------------------------------


def _max_pool(call: OperatorCall) -> tuple[Compute, Grid | None]:
    call.needs("auto_pad", b"NOTSET")
    call.needs("ceil_mode", 0)
    kernel = call.attributes["kernel_shape"]
    axes = tuple(range(-len(kernel), 0))
    operand = call.operand(0)
    grid = call.single(0) if operand.real else operand.grid
    return lambda x: _windows(x, call, kernel, np.iinfo(x.dtype).min).max(axes), grid


def _average_pool(call: OperatorCall) -> tuple[Compute, Grid]:
    call.needs("auto_pad", b"NOTSET")
    call.needs("ceil_mode", 0)
    kernel = call.attributes["kernel_shape"]
    call.needs("pads", [0] * 2 * len(kernel))
    reads, axes = call.single(0), tuple(range(-len(kernel), 0))
    grid = _average_of(call, math.prod(kernel))
    return lambda x: _windows(reads.offsets(x), call, kernel, 0).sum(axes, np.int32), grid


def _mean(call: OperatorCall, axes: Sequence[int], keeps: bool) -> tuple[Compute, Grid]:
    reads, operand = call.single(0), call.operand(0)
    lengths = [operand.shape[axis] for axis in axes]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        call.refuse("a mean over axes of known length", f"shape {operand.shape}")
    grid = _average_of(call, math.prod(known))
    return lambda x, *_: reads.offsets(x).sum(tuple(axes), np.int32, keepdims=keeps), grid


def _average_of(call: OperatorCall, count: int) -> Grid:
    """Return the grid of a sum that stands for an average: its step is the smaller by as many times."""
    reads = call.single(0)
    return Grid(reads.scale / count, 0, call.fits(reads.most * count))


def _global_average(call: OperatorCall) -> tuple[Compute, Grid]:
    operand = call.operand(0)
    return _mean(call, range(2, len(operand.shape)), True)


def _reduce_mean(call: OperatorCall) -> tuple[Compute, Grid]:
    axes = call.attributes.get("axes") or call.integers(1)
    if not axes:
        call.refuse("axes", "none")
    return _mean(call, axes, bool(call.attributes.get("keepdims", 1)))


KERNELS: Mapping[str, Operator] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _linear,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _reduce_mean,
}
"""By type of the operator."""
