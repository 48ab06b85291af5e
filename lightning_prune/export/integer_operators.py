"""Operators of ONNX on integers, but for layers and pooling, and the table of all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lightning_prune.export.fixed_point import Integers, Multiplier, multiplied, saturated
from lightning_prune.export.integer_kernels import KERNELS
from lightning_prune.export.integer_operand import MOST, Compute, Grid, Operator, OperatorCall

_SUM = 2**30
"""Terms with different steps are added in steps so small that the largest sum is about this."""


def code_type(call: OperatorCall) -> np.dtype[Any]:
    """Return the type of the codes that a `QuantizeLinear` or a `DequantizeLinear` names."""
    dtype = call.constant(2).dtype if call.has(2) else np.dtype(np.uint8)
    if dtype.kind not in "iu":
        call.refuse("codes of an integer type of numpy", dtype.name)
    return dtype


def stored_grid(call: OperatorCall) -> Grid:
    """Return the grid that a `QuantizeLinear` or a `DequantizeLinear` names."""
    scale = call.constant(1).astype(np.float64)
    given = call.constant(2) if call.has(2) else None
    operand = call.operand(0)
    if given is not None and (given != given.flat[0]).any():
        call.refuse("one zero-point", f"{given.size} that differ")
    if not (np.isfinite(scale) & (scale > 0)).all():
        call.refuse("finite positive scales", str(scale.ravel().tolist()[:8]))
    if scale.ndim == 1 and scale.size > 1:
        axis = call.attributes.get("axis", 1)
        scale = scale.reshape([-1 if dim == axis % len(operand.shape) else 1 for dim in range(len(operand.shape))])
    zero_point = 0 if given is None else int(given.flat[0])
    if operand.constant is not None:
        most = int(np.abs(operand.constant.astype(np.int64) - zero_point).max(initial=0))
    else:
        limits = np.iinfo(code_type(call))
        most = max(limits.max - zero_point, zero_point - limits.min)
    return Grid(scale.reshape(()) if scale.size == 1 else scale, zero_point, call.fits(most))


def _quantize(call: OperatorCall) -> tuple[Compute, Grid]:
    source, target = call.real(0), stored_grid(call)
    if target.scale.size != 1:
        call.refuse("one scale for what is computed", str(target.scale.size))
    dtype, by = code_type(call), Multiplier.of(source.scale / target.scale)
    return lambda x, *_: saturated(multiplied(source.offsets(x), by) + target.zero_point, dtype), target


def _dequantize(call: OperatorCall) -> tuple[Compute, Grid]:
    return lambda codes, *_: codes, stored_grid(call)


# Sums and what stands behind them -------------------------------------------------------------------------------------


def _common(grids: Sequence[Grid]) -> tuple[Callable[[Sequence[Integers]], list[Integers]], Grid]:
    """Return how to bring numbers to steps in which they can be added, and these."""
    span = sum(float(grid.scale.max()) * max(grid.most, 1) for grid in grids)
    scale = np.asarray(span / _SUM)
    by = [Multiplier.of(grid.scale / scale) for grid in grids]

    def rescaled(numbers: Sequence[Integers]) -> list[Integers]:
        parts = zip(grids, numbers, by, strict=True)
        return [multiplied(grid.offsets(each), factor).astype(np.int32) for grid, each, factor in parts]

    return rescaled, Grid(scale, 0, _SUM + len(grids))


def _add(call: OperatorCall) -> tuple[Compute, Grid]:
    one, other = call.real(0), call.real(1)
    if one.same(other) and one.most + other.most <= MOST:  # as a bias is added
        return lambda a, b: one.offsets(a) + other.offsets(b), Grid(one.scale, 0, one.most + other.most)
    rescaled, grid = _common([one, other])
    return lambda *numbers: np.add(*rescaled(numbers)), grid


def _mul(call: OperatorCall) -> tuple[Compute, Grid]:
    one, other = call.real(0), call.real(1)
    grid = Grid(one.scale * other.scale, 0, call.fits(one.most * other.most))
    return lambda a, b: one.offsets(a) * other.offsets(b), grid


def _concat(call: OperatorCall) -> tuple[Compute, Grid]:
    axis, grids = call.attributes["axis"], [call.single(index) for index in range(len(call.operands))]
    if all(grid.same(grids[0]) and grid.zero_point == grids[0].zero_point for grid in grids):
        most = max(grid.most for grid in grids)
        return lambda *numbers: np.concatenate(numbers, axis), grids[0]._replace(most=most)
    rescaled, grid = _common(grids)
    return lambda *numbers: np.concatenate(rescaled(numbers), axis), grid


def _relu(call: OperatorCall) -> tuple[Compute, Grid]:
    grid = call.real(0)
    return lambda x: np.maximum(x, grid.zero_point), grid


def _clip(call: OperatorCall) -> tuple[Compute, Grid | None]:
    limits = [call.constant(index) if call.has(index) else None for index in (1, 2)]
    if not call.operand(0).real:
        return lambda codes, *_: codes.clip(*limits), call.operand(0).grid
    rescaled, grid = _common([call.real(0)])  # a limit need not be a code
    sides = [side if limit is None else float(limit) for limit, side in zip(limits, (-np.inf, np.inf), strict=True)]
    low, high = (np.rint(side / grid.scale).clip(-MOST, MOST).astype(np.int32) for side in sides)
    return lambda x, *_: rescaled([x])[0].clip(low, high), grid


# What only moves numbers ----------------------------------------------------------------------------------------------


def _moved(move: Callable[[OperatorCall], Callable[[Integers], Integers]]) -> Operator:
    """Return an operator whose result lies on the grid of its first operand, which has one scale for all."""

    def operator(call: OperatorCall) -> tuple[Compute, Grid | None]:
        operand, function = call.operand(0), move(call)
        return lambda x, *_: function(x), call.single(0) if operand.real else operand.grid

    return operator


def _transpose(call: OperatorCall) -> tuple[Compute, Grid | None]:
    operand = call.operand(0)
    order, grid = call.attributes.get("perm", list(range(len(operand.shape)))[::-1]), operand.grid
    if grid is not None and grid.scale.ndim:
        if grid.scale.ndim != len(order):
            call.refuse("one scale for operand 0", f"{grid.scale.size}; round it in between")
        grid = grid._replace(scale=grid.scale.transpose(order))
    return lambda x: x.transpose(order), grid


def _reshape(call: OperatorCall) -> Callable[[Integers], Integers]:
    lengths, keeps = call.integers(1) or [], not call.attributes.get("allowzero", 0)
    return lambda x: x.reshape([x.shape[i] if n == 0 and keeps else n for i, n in enumerate(lengths)])


def _flatten(call: OperatorCall) -> Callable[[Integers], Integers]:
    axis = call.attributes.get("axis", 1)
    return lambda x: x.reshape(int(np.prod(x.shape[:axis])), -1)


def _squeeze(call: OperatorCall) -> Callable[[Integers], Integers]:
    axes = call.integers(1)
    return lambda x: x.squeeze(None if axes is None else tuple(axes))


def _unsqueeze(call: OperatorCall) -> Callable[[Integers], Integers]:
    axes = call.integers(1) or []
    return lambda x: np.expand_dims(x, tuple(axes))


def _slice(call: OperatorCall) -> Callable[[Integers], Integers]:
    starts, ends, steps = call.integers(1) or [], call.integers(2) or [], call.integers(4)
    axes = call.integers(3) or range(len(starts))
    cuts = {axis: slice(*cut) for axis, *cut in zip(axes, starts, ends, steps or [1] * len(starts), strict=True)}
    if any(cut.step < 0 for cut in cuts.values()):
        call.refuse("positive steps", str(steps))
    return lambda x: x[tuple(cuts.get(dim, cuts.get(dim - x.ndim, slice(None))) for dim in range(x.ndim))]


def _pad(call: OperatorCall) -> Callable[[Integers], Integers]:
    call.needs("mode", b"constant")
    operand, pads = call.operand(0), call.integers(1) or []
    if min(pads) < 0:
        call.refuse("no negative pads", str(pads))
    value = call.constant(2).item() if call.has(2) else 0
    if operand.real:
        if value:
            call.refuse("padding with zeros", str(value))
        value = call.real(0).zero_point
    axes, half = call.integers(3) or range(len(operand.shape)), len(pads) // 2
    width = {axis % len(operand.shape): pair for axis, *pair in zip(axes, pads[:half], pads[half:], strict=True)}
    return lambda x: np.pad(x, [width.get(dim, (0, 0)) for dim in range(x.ndim)], constant_values=value)


OPERATORS: Mapping[str, Operator] = {
    **KERNELS,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Add": _add,
    "Mul": _mul,
    "Concat": _concat,
    "Relu": _relu,
    "Clip": _clip,
    "Transpose": _transpose,
    "Identity": _moved(lambda call: lambda x: x),
    "Flatten": _moved(_flatten),
    "Reshape": _moved(_reshape),
    "Squeeze": _moved(_squeeze),
    "Unsqueeze": _moved(_unsqueeze),
    "Slice": _moved(_slice),
    "Pad": _moved(_pad),
}
"""By type of the operator."""
