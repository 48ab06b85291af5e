"""Operators of the integer executor, each in a file of its own, against float64 formulas and numbers worked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.export.integer_executor import IntegerExecutor

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

SHAPE = (6, 4, 7, 6)
GRIDS = [(0.0517, 100), (0.0313, 20)]
"""Scale and zero-point of each input. No simple ratios to those of outputs, with which sums lie between two codes."""


class Graph:
    """A file in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def call(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def quantize(self, x: str, scale: float, zero_point: int) -> str:
        return self.call("QuantizeLinear", x, self.constant(np.float32(scale)), self.constant(np.uint8(zero_point)))

    def dequantize(self, codes: str, scale: Any, zero_point: Any, **attributes: Any) -> str:
        grid = self.constant(np.float32(scale)), self.constant(zero_point)
        return self.call("DequantizeLinear", codes, *grid, **attributes)

    def held(self, codes: np.ndarray, scale: np.ndarray, axis: int = 0) -> str:
        zero_points = np.zeros(len(scale), codes.dtype)
        return self.dequantize(self.constant(codes), scale, zero_points, axis=axis)

    def read(self, count: int, shape: tuple[int, ...] = SHAPE) -> list[str]:
        """Add inputs, rounded to the first grids."""
        self.inputs = {f"x{index}": shape for index in range(count)}
        grids = zip(self.inputs, GRIDS, strict=False)
        return [self.dequantize(self.quantize(x, *grid), grid[0], np.uint8(grid[1])) for x, grid in grids]

    def save(self, path: Path, output: str) -> IntegerExecutor:
        def described(name: str, shape: tuple[int, ...] | None) -> Any:
            return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

        inputs = [described(*each) for each in self.inputs.items()]
        graph = onnx.helper.make_graph(self.nodes, "graph", inputs, [described(output, None)], self.constants)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]), path)
        return IntegerExecutor(path)


def check(
    path: Path, graph: Graph, result: str, expected: Callable[..., Tensor], grid: tuple[float, int]
) -> np.ndarray:
    """Round a result to a grid and compare its codes with those of a formula in float64."""
    executor = graph.save(path, graph.dequantize(graph.quantize(result, *grid), grid[0], np.uint8(grid[1])))
    generator = np.random.default_rng(1)
    codes = executor.rounded({x: generator.uniform(-9, 9, shape) for x, shape in graph.inputs.items()})
    numbers = []
    for given, (scale, zero_point) in zip(codes.values(), GRIDS, strict=False):
        assert given.dtype == np.uint8
        assert given.max() - given.min() > 100
        numbers.append(torch.from_numpy(float(np.float32(scale)) * (given.astype(np.float64) - zero_point)))
    (found,) = executor.run(codes).values()
    scale = float(np.float32(grid[0]))
    right = ((expected(*numbers) / scale).round() + grid[1]).clamp(0, 255).numpy()
    assert len(np.unique(right)) > 50
    np.testing.assert_array_equal(found.codes, right)
    assert (found.scale, found.zero_point) == (scale, grid[1])
    return found.codes


@pytest.mark.parametrize(
    ("op", "attributes", "expected", "grid"),
    [
        ("Relu", {}, F.relu, (0.0231, 5)),
        ("Add", {}, torch.add, (0.0717, 120)),
        ("Mul", {}, torch.mul, (0.217, 130)),
        ("Concat", {"axis": 1}, lambda x, y: torch.cat([x, y], 1), (0.0617, 90)),
        (
            "MaxPool",
            {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 0], "dilations": [1, 2]},
            lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0), (1, 2)),
            (0.0411, 60),
        ),
        ("AveragePool", {"kernel_shape": [3, 2]}, lambda x: F.avg_pool2d(x, (3, 2), 1), (0.0237, 50)),
        ("Flatten", {"axis": 2}, lambda x: x.flatten(2).flatten(0, 1), (0.0617, 90)),
        ("Transpose", {"perm": [0, 2, 3, 1]}, lambda x: x.permute(0, 2, 3, 1), (0.0617, 90)),
    ],
)
def test_operator(op, attributes, expected, grid, tmp_path):
    graph = Graph()
    inputs = graph.read(2 if op in ("Add", "Mul", "Concat") else 1)
    check(tmp_path / "a.onnx", graph, graph.call(op, *inputs, **attributes), expected, grid)


@pytest.mark.parametrize(
    ("op", "operands", "expected"),
    [
        ("Clip", [np.float32(-1), np.float32(3.3)], lambda x: x.clamp(-1, float(np.float32(3.3)))),
        ("Reshape", [np.array([0, -1, 6])], lambda x: x.flatten(1, 2)),
        ("Unsqueeze", [np.array([1])], lambda x: x.unsqueeze(1)),
        ("Slice", [np.array(cut) for cut in ([1, -6], [2**62, -1], [1, -1], [1, 2])], lambda x: x[:, 1:, :, 0:5:2]),
        ("Pad", [np.array([0, 1, 2, 0]), np.float32(0), np.array([1, 3])], lambda x: F.pad(x, (1, 0, 0, 0, 0, 2))),
    ],
)
def test_operator_with_operands(op, operands, expected, tmp_path):
    graph = Graph()
    (x,) = graph.read(1)
    check(tmp_path / "a.onnx", graph, graph.call(op, x, *map(graph.constant, operands)), expected, (0.0371, 110))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "ReduceMean"])
def test_mean_is_a_sum_and_a_multiplier(op, tmp_path):
    graph = Graph()
    (x,) = graph.read(1, (40, 4, 7, 6))
    if op == "ReduceMean":
        result = graph.call(op, x, graph.constant(np.array([-1, 2])), keepdims=0)
        check(tmp_path / "a.onnx", graph, result, lambda x: x.mean((2, 3)), (0.0131, 128))
    else:
        squeezed = graph.call("Squeeze", graph.call(op, x), graph.constant(np.array([2, 3])))
        check(tmp_path / "a.onnx", graph, squeezed, lambda x: x.mean((2, 3)), (0.0131, 128))


def weights(*shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor, Tensor]:
    """Return codes, scales and bias codes, and the weight and bias that they mean for an input of the first grid."""
    generator = np.random.default_rng(2)
    codes = generator.integers(-127, 128, shape).astype(np.int8)
    scale = generator.uniform(0.001, 0.01, shape[0]).astype(np.float32)
    bias = generator.integers(-9000, 9000, shape[0]).astype(np.int32)
    real = torch.from_numpy(scale).double()
    weight = torch.from_numpy(codes).double() * real.view(-1, *[1] * (len(shape) - 1))
    return codes, scale, bias, weight, torch.from_numpy(bias) * real * float(np.float32(GRIDS[0][0]))


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, 1, 1, 1), (2, 2, 0, 1), (4, 1, 2, 2), (1, (1, 2), (2, 0), 1)]
)
def test_convolution(groups, stride, padding, dilation, tmp_path):
    graph = Graph()
    (x,) = graph.read(1)
    codes, scale, bias_codes, weight, bias = weights(8, 4 // groups, 3, 3)
    strides, pads, dilations = ([each] * 2 if isinstance(each, int) else each for each in (stride, padding, dilation))
    held = graph.held(codes, scale), graph.held(bias_codes, np.float32(GRIDS[0][0]) * scale)
    attributes = {"group": groups, "strides": strides, "pads": [*pads, *pads], "dilations": dilations}
    hidden = graph.call("Relu", graph.call("Conv", x, *held, **attributes))

    def expected(x: Tensor) -> Tensor:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    found = check(tmp_path / "a.onnx", graph, hidden, expected, (0.0817, 0))
    assert (found == 0).mean() > 0.2  # the ReLU


@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_linear(op, tmp_path):
    graph = Graph()
    (x,) = graph.read(1, (30, 16) if op == "Gemm" else (5, 6, 16))
    codes, scale, bias_codes, weight, bias = weights(10, 16)
    held, held_bias = graph.held(codes, scale), graph.held(bias_codes, np.float32(GRIDS[0][0]) * scale)
    if op == "Gemm":
        result = graph.call(op, x, held, held_bias, transB=1)
    else:
        result = graph.call("Add", graph.call(op, x, graph.call("Transpose", held, perm=[1, 0])), held_bias)
    check(tmp_path / "a.onnx", graph, result, lambda x: F.linear(x, weight, bias), (0.0917, 70))


def test_linear_layer_worked_by_hand(tmp_path):
    """Codes 122, 39 and 178 from zero-point 67; 18097 + 554 = 18651, which is 122 on the grid of the output."""
    graph, read = Graph(), np.float32(4.6 / 255)
    graph.inputs = {"x": (1, 3)}
    x = graph.dequantize(graph.quantize("x", read, 67), read, np.uint8(67))
    weight = graph.held(np.array([[60, -25, 127]], np.int8), np.array([0.01], np.float32))
    bias = graph.held(np.array([554], np.int32), read * np.float32([0.01]))
    out = graph.call("Gemm", x, weight, bias, transB=1)
    codes = graph.quantize(out, 0.03, 10)
    executor = graph.save(tmp_path / "a.onnx", graph.dequantize(codes, 0.03, np.uint8(10)))
    given = executor.rounded({"x": np.array([[1.0, -0.5, 2.0]], np.float32)})
    assert [each.tolist() for each in given.values()] == [[[122, 39, 178]]]
    found = executor.run(given, [out, codes])
    assert found[out].codes.tolist() == [[18651]]
    assert found[out].numbers().item() == pytest.approx(3.3645, abs=1e-4)
    assert found[codes].codes.tolist() == [[122]]


# What cannot be computed ----------------------------------------------------------------------------------------------


def test_unknown_operator_is_named(tmp_path):
    graph = Graph()
    (x,) = graph.read(1)
    with pytest.raises(InputError, match=r"operators that integers alone can compute, got Sigmoid Sigmoid_2"):
        graph.save(tmp_path / "a.onnx", graph.call("Sigmoid", x))


def test_unknown_setting_is_named(tmp_path):
    graph = Graph()
    (x,) = graph.read(1)
    with pytest.raises(InputError, match=r"expected ceil_mode 0 in MaxPool MaxPool_2, got 1"):
        graph.save(tmp_path / "a.onnx", graph.call("MaxPool", x, kernel_shape=[2, 2], ceil_mode=1))


def test_layer_that_reads_sums_of_products_is_refused(tmp_path):
    graph = Graph()
    (x,) = graph.read(1)
    codes, scale, *_ = weights(4, 4, 1, 1)
    first = graph.call("Conv", x, graph.held(codes, scale))
    with pytest.raises(InputError, match=r"expected one scale for operand 0 in Conv Conv_5, got 4"):
        graph.save(tmp_path / "a.onnx", graph.call("Conv", first, graph.held(codes, scale)))


def test_bias_in_other_steps_is_refused(tmp_path):
    graph = Graph()
    (x,) = graph.read(1)
    codes, scale, bias, *_ = weights(4, 4, 1, 1)
    with pytest.raises(InputError, match=r"expected a bias in steps of the input times the weight"):
        graph.save(tmp_path / "a.onnx", graph.call("Conv", x, graph.held(codes, scale), graph.held(bias, scale)))


def test_sum_that_is_no_int32_is_refused(tmp_path):
    graph = Graph()
    (x,) = graph.read(1, (1, 120_000))
    weight = graph.held(np.full((1, 120_000), 127, np.int8), np.float32([0.01]))
    with pytest.raises(InputError, match=r"expected sums that an int32 holds in Gemm Gemm_3, got up to 2362200000"):
        graph.save(tmp_path / "a.onnx", graph.call("Gemm", x, weight, transB=1))


def test_wrong_codes_are_refused(tmp_path):
    graph = Graph()
    first, second = graph.read(2)
    executor = graph.save(tmp_path / "a.onnx", graph.call("Add", first, second))
    codes = executor.rounded({x: np.zeros(SHAPE, np.float32) for x in graph.inputs})
    name, other = codes
    with pytest.raises(InputError, match=f"expected codes of {other} too"):
        executor.run({name: codes[name]})
    with pytest.raises(InputError, match=f"expected integers for {name}, got float32"):
        executor.run({**codes, name: codes[name].astype(np.float32)})
    with pytest.raises(InputError, match="expected names of tensors with codes"):
        executor.run(codes, ["nothing"])
    with pytest.raises(InputError, match="expected input x1"):
        executor.rounded({"x0": np.zeros(SHAPE)})
