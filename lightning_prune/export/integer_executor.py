"""Running ONNX files with integers alone, as a machine without floats would."""

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_prune.errors import InputError
from lightning_prune.export.fixed_point import Integers
from lightning_prune.export.integer_operand import Compute, Grid, Operand, OperatorCall
from lightning_prune.export.integer_operators import OPERATORS, code_type, stored_grid
from lightning_prune.export.onnx_session import require_onnx

if TYPE_CHECKING:
    from onnx import NodeProto, ValueInfoProto


class Codes(NamedTuple):
    """Integers that mean `scale * (codes - zero_point)`."""

    codes: Integers
    scale: NDArray[np.float64]
    """Of a shape that broadcasts over the codes."""
    zero_point: int

    def numbers(self) -> NDArray[np.float64]:
        """Return what they mean, of the shape of the codes."""
        return self.scale * (self.codes.astype(np.int64) - self.zero_point)


class _Step(NamedTuple):
    output: str
    inputs: list[str]
    compute: Compute


class _Entry(NamedTuple):
    """Where a float input becomes codes."""

    input: str
    grid: Grid
    dtype: np.dtype[Any]


class IntegerExecutor:
    """Run a file in which each layer stands between `DequantizeLinear` and `QuantizeLinear`, with integers alone.

    Products are added up in int32 together with an int32 bias. The steps of one tensor become those of the next by an
    int32 multiplier and a shift, one pair for each output channel, which are computed once, when the file is opened;
    then the numbers are saturated to the codes. Plain and slow: it says what is right, to compare engines with.

    Args:
        path: A file that `write_onnx` has made of an `integer_network`.

    Raises:
        InputError: If a package is missing, or something in the file cannot be computed with integers alone.

    Reference:
        Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
        2018, arXiv 1712.05877, section 2.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        require_onnx()
        import onnx

        graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
        self.outputs = [value.name for value in graph.output]
        """Names of what the file computes."""
        self._known = {value.name: _described(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        for tensor in graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            self._known[tensor.name] = Operand(array.dtype.kind == "f", array.shape, constant=array)
        self._entries: dict[str, _Entry] = {}
        self._steps: list[_Step] = []
        inputs = {value.name for value in graph.input}
        for node in graph.node:
            attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            operands = tuple(self._known[name] if name else None for name in node.input)
            call = OperatorCall(node.op_type, node.name or node.output[0], attributes, operands)
            if node.op_type == "QuantizeLinear" and node.input[0] in inputs:
                self._enter(call, node)
            else:
                self._append(call, node)

    def _enter(self, call: OperatorCall, node: "NodeProto") -> None:
        """Take the place where an input becomes codes."""
        (output,), grid = node.output, stored_grid(call)
        self._entries[output] = _Entry(node.input[0], grid, code_type(call))
        self._known[output] = self._known[output]._replace(grid=grid)

    def _append(self, call: OperatorCall, node: "NodeProto") -> None:
        """Take over what is to be computed, or compute it if it does not depend on the inputs."""
        if call.op not in OPERATORS:
            raise InputError(f"expected operators that integers alone can compute, got {call.op} {call.name}")
        if len(node.output) != 1:
            call.refuse("one output", f"{len(node.output)}")
        compute, grid = OPERATORS[call.op](call)
        step = _Step(node.output[0], list(node.input), compute)
        known = self._known[step.output]._replace(grid=grid)
        if all(each is None or each.constant is not None for each in call.operands):
            known = known._replace(constant=step.compute(*(self._value(name, {}) for name in step.inputs)))
        else:
            self._steps.append(step)
        self._known[step.output] = known

    @property
    def tensors(self) -> list[str]:
        """Names of all tensors that depend on the inputs and have codes, in the order of the file."""
        computed = [step.output for step in self._steps if self._known[step.output].grid is not None]
        return [*self._entries, *computed]

    def rounded(self, inputs: Mapping[str, NDArray[np.floating[Any]]]) -> dict[str, Integers]:
        """Return the codes of float inputs, under the names that `run` takes them: the only step that needs floats.

        They are of the shapes of the inputs.

        Args:
            inputs: By the names of the file's inputs.

        Raises:
            InputError: If one is missing.
        """
        codes: dict[str, Integers] = {}
        for name, entry in self._entries.items():
            if entry.input not in inputs:
                raise InputError(f"expected input {entry.input}, got {', '.join(inputs) or 'none'}")
            numbers = inputs[entry.input].astype(np.float32)
            steps = np.rint(numbers / np.float32(entry.grid.scale)) + entry.grid.zero_point
            limits = np.iinfo(entry.dtype)
            codes[name] = steps.clip(limits.min, limits.max).astype(entry.dtype)
        return codes

    def run(self, given: Mapping[str, Integers], wanted: Collection[str] | None = None) -> dict[str, Codes]:
        """Return the codes of tensors, computed with integers from those of others.

        Args:
            given: Codes by the names of tensors, of their shapes: those of `rounded`, or any within the network.
            wanted: Names of tensors, by default `outputs`.

        Raises:
            InputError: If a name is not in the file, codes are no integers, or others are needed.
        """
        wanted = self.outputs if wanted is None else wanted
        grids = {name: self._grid(name) for name in (*given, *wanted)}
        for name, codes in given.items():
            if codes.dtype.kind not in "iu":
                raise InputError(f"expected integers for {name}, got {codes.dtype}; see IntegerExecutor.rounded")
        values: dict[str, Integers | None] = dict(given)
        for step in self._needed(given, wanted):
            values[step.output] = step.compute(*(self._value(name, values) for name in step.inputs))
        found = {name: values[name] for name in wanted}
        return {name: Codes(codes, *grids[name][:2]) for name, codes in found.items() if codes is not None}

    def _grid(self, name: str) -> Grid:
        known = self._known.get(name)
        if known is None or known.grid is None or known.constant is not None:
            raise InputError(f"expected names of tensors with codes, such as {self.tensors[-1]}, got {name}")
        return known.grid

    def _needed(self, given: Collection[str], wanted: Collection[str]) -> list[_Step]:
        """Return the steps from some tensors to others, in order."""
        needed, steps = set(wanted) - set(given), list[_Step]()
        for step in reversed(self._steps):
            if step.output in needed:
                steps.append(step)
                needed.remove(step.output)
                needed.update(set(step.inputs) - set(given))
        missing = [name for name in self._entries if name in needed]
        if missing:
            raise InputError(f"expected codes of {', '.join(missing)} too, got those of {', '.join(given) or 'none'}")
        return steps[::-1]

    def _value(self, name: str, values: Mapping[str, Integers | None]) -> Integers | None:
        """Return the integers of a tensor, None if it has none."""
        if name in values or not name:
            return values.get(name)
        constant = self._known[name].constant
        return constant if constant is not None and constant.dtype.kind in "iu" else None


def _described(value: "ValueInfoProto") -> Operand:
    """Return what a file says of a tensor."""
    from onnx import TensorProto

    kind = value.type.tensor_type
    lengths = tuple(each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim)
    return Operand(kind.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16), lengths)
