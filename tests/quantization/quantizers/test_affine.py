"""Integers with a scale and a zero-point, against worked numbers, torch and onnxruntime."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.affine import Affine, AffineActivation, AffineWeight
from lightning_prune.quantization.quantizers.rounding import fake_quantize


def scalar(value: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def ranged(low: float, high: float, bits: int = 8) -> AffineActivation:
    activation = AffineActivation(bits, signed=True, averaging=0.5)
    activation.observe(torch.tensor([low, high]))
    return activation


def quantized(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The result for `x`, and the gradient that ones make."""
    x = x.clone().requires_grad_()
    y = fake_quantize(x, scalar(scale), scalar(zero_point, torch.int32), low, high)
    y.backward(torch.ones_like(y))
    assert x.grad is not None
    return y.detach(), x.grad


def near_ties(scale: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers around the middles between levels, from next to them to half a level away."""
    middles = (torch.arange(-300, 300) + 0.5).to(dtype) * scalar(scale).to(dtype)
    offsets = torch.arange(-6, 7, dtype=dtype) * torch.finfo(dtype).eps
    return torch.cat([(middles.unsqueeze(1) * (1 + offsets)).reshape(-1), torch.randn(1000, dtype=dtype)])


SCALES = [1.0, 0.5, 0.1, 0.0180392157, 1 / 3, 7.7e-6, 123.4]


# The grid -------------------------------------------------------------------------------------------------------------


def test_range_is_moved_so_that_zero_is_a_level() -> None:
    activation = ranged(-1.2, 3.4)
    scale, zero_point, low, high = activation.grid()
    assert scale.item() == pytest.approx(0.0180392157, rel=1e-6)
    assert (zero_point.item(), low, high) == (67, 0, 255)
    assert (scale * (0 - zero_point)).item() == pytest.approx(-1.208627, abs=1e-6)
    assert (scale * (255 - zero_point)).item() == pytest.approx(3.391373, abs=1e-6)
    x = torch.tensor([-2.0, -1.2, -0.5, 0.0, 0.01, 1.0, 3.4, 5.0])
    codes = torch.tensor([0, 0, 39, 67, 68, 122, 255, 255])
    assert torch.equal(activation.round(x), scale * (codes - 67))
    assert activation.round(scalar(0.0)).item() == 0.0


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_zero_is_exact_and_levels_are_counted_whatever_the_range(bits: int) -> None:
    for low, high in [(-1.0, 1e-4), (0.5, 2.0), (-3.0, -0.2), (-7.3, 5.1), (0.0, 0.0)]:
        activation = ranged(low, high, bits)
        x = torch.cat([torch.zeros(1), torch.linspace(-9, 9, 5000)])
        y = activation.round(x)
        assert y[0] == 0
        assert len(y.unique()) <= 2**bits
        assert torch.equal(activation.round(y), y)
        scale, zero_point, least, most = activation.grid()
        inside = x[(x >= scale * (least - zero_point)) & (x <= scale * (most - zero_point))]
        assert (activation.round(inside) - inside).abs().max() <= scale / 2 * (1 + 1e-5)


def test_gradient_passes_inside_the_range() -> None:
    y, grad = quantized(torch.tensor([0.5, 1.5, 2.5, -0.5, 300.0]), 1.0, 0, 0, 255)
    assert y.tolist() == [0, 2, 2, 0, 255]
    assert grad.tolist() == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("zero_point", "low", "high"), [(0, 0, 255), (67, 0, 255), (0, -127, 127), (3, 0, 3)])
def test_gradient_is_exact_at_every_number(
    scale: float, zero_point: int, low: int, high: int, dtype: torch.dtype
) -> None:
    x = near_ties(scale, dtype)
    y, grad = quantized(x, scale, zero_point, low, high)
    codes = (x / scalar(scale)).round() + zero_point
    assert y.dtype == dtype
    assert torch.equal(y, (codes.clamp(low, high) - zero_point) * scalar(scale))
    assert torch.equal(grad, ((codes >= low) & (codes <= high)).to(dtype))
    assert 0 < grad.sum() < grad.numel()


@pytest.mark.parametrize("scale", [1.0, 0.25, 2.0**-7])
def test_agrees_with_torch_where_its_inverse_is_exact(scale: float) -> None:
    x = near_ties(scale)
    mine = quantized(x, scale, 100, 0, 255)
    x.requires_grad_()
    theirs = torch.fake_quantize_per_tensor_affine(x, scale, 100, 0, 255)
    theirs.backward(torch.ones_like(theirs))
    assert torch.equal(mine[0], theirs)
    assert x.grad is not None
    assert torch.equal(mine[1], x.grad)


def test_agrees_with_onnxruntime_to_the_bit() -> None:
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero_point"], ["y"]),
    ]
    inputs = [("x", kind.FLOAT, [None]), ("scale", kind.FLOAT, []), ("zero_point", kind.UINT8, [])]
    values = [helper.make_tensor_value_info(*one) for one in inputs]
    graph = helper.make_graph(nodes, "qdq", values, [helper.make_tensor_value_info("y", kind.FLOAT, [None])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for scale, zero_point in itertools.product(SCALES, [0, 67, 255]):
        x = near_ties(scale)
        step, zero = scalar(scale), scalar(zero_point, torch.uint8)
        (y,) = session.run(None, {"x": x.numpy(), "scale": step.numpy(), "zero_point": zero.numpy()})
        assert torch.equal(fake_quantize(x, step, zero, 0, 255), torch.from_numpy(y))


# The operator ---------------------------------------------------------------------------------------------------------


def test_is_an_operator_that_compilers_and_exporters_see() -> None:
    given = scalar(0.1), scalar(3, torch.int32), 0, 15
    torch.library.opcheck(
        torch.ops.lightning_prune.fake_quantize.default, (torch.randn(20, requires_grad=True), *given)
    )
    model = nn.Sequential(nn.Conv2d(2, 3, 3), ranged(-1.0, 2.0)).eval()
    model[1].quantizing = True
    x = torch.randn(2, 2, 5, 5)
    program = torch.export.export(model, (x,))
    assert [node for node in program.graph.nodes if node.target == torch.ops.lightning_prune.fake_quantize.default]
    assert torch.equal(program.module()(x), model(x))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    compiled(x).square().sum().backward()
    grad, model[0].weight.grad = model[0].weight.grad, None
    model(x).square().sum().backward()
    assert grad is not None
    assert torch.equal(grad, model[0].weight.grad)


def test_takes_empty_and_permuted_tensors_and_does_not_hide_nan() -> None:
    assert quantized(torch.randn(0, 3), 0.1, 0, 0, 255)[1].shape == (0, 3)
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    y, grad = quantized(x, 0.1, 0, 0, 255)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(grad, ((x / scalar(0.1)).round() >= 0).float())
    y, _ = quantized(torch.tensor([math.nan, math.inf, -math.inf]), 0.1, 5, 0, 10)
    assert y[0].isnan()
    assert torch.equal(y[1:], scalar(0.1) * torch.tensor([5, -5]))
    assert quantized(x, math.nan, 0, 0, 255)[0].isnan().all()


# Ranges ---------------------------------------------------------------------------------------------------------------


def test_ranges_follow_the_batches() -> None:
    activation = AffineActivation(8, signed=True, averaging=0.25)
    limit = activation.limit()
    assert limit is not None
    assert limit.isinf()
    for batch in ([-1.0, 3.0], [-2.0, 1.0], [], [math.nan, 9.0], [math.inf, -50.0]):
        activation.observe(torch.tensor(batch))
    assert (activation.low.item(), activation.high.item()) == (-1.25, 2.5)
    assert activation.limit() == 2.5
    positive = AffineActivation(8, signed=False, averaging=0.25)
    for batch in ([1.0, 3.0], [2.0, 1.0]):
        positive.observe(torch.tensor(batch))
    assert (positive.low.item(), positive.high.item()) == (0, 2.75)
    assert positive.grid()[1] == 0


def test_averaging_of_one_over_k_makes_the_mean() -> None:
    activation, batches = AffineActivation(8, signed=True, averaging=1.0), torch.randn(5, 100)
    for number, batch in enumerate(batches, 1):
        activation.averaging = 1 / number
        activation.observe(batch)
    torch.testing.assert_close(activation.low, batches.amin(1).mean())
    torch.testing.assert_close(activation.high, batches.amax(1).mean())


def test_observes_and_rounds_when_it_is_told_to_in_the_format_that_comes() -> None:
    activation, x = AffineActivation(8, signed=True, averaging=0.1), torch.randn(50).bfloat16()
    assert activation(x) is x
    assert activation.low.isinf()
    activation.observing = True
    assert activation(x) is x
    assert activation.high == x.max()
    activation.quantizing = True
    y = activation(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, activation.round(x.float()).bfloat16())
    other = AffineActivation(8, signed=True, averaging=0.1)
    other.load_state_dict(copy.deepcopy(activation).state_dict())
    assert torch.equal(other.round(x.float()), activation.round(x.float()))


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_weights_are_symmetric_codes_times_scale(bits: int, axis: int | None) -> None:
    module, weight = AffineWeight(bits, axis), torch.randn(6, 4, 3, 3)
    weight[2], weight[:, 1] = 0.0, 0.0
    weight.requires_grad_()
    rounded = module(weight)
    codes, scale = module.codes(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().max() == 2 ** (bits - 1) - 1
    assert scale.shape == (() if axis is None else (weight.shape[axis],))
    shape = [-1 if dim == axis else 1 for dim in range(4)]
    assert torch.equal(rounded, codes * scale.reshape(shape))
    assert (rounded[2] == 0).all()
    assert (rounded[:, 1] == 0).all()
    grad = torch.randn_like(rounded)
    rounded.backward(grad)
    assert weight.grad is not None
    assert torch.equal(weight.grad, grad)


def test_weights_agree_with_torch() -> None:
    weight = torch.randn(6, 20)
    weight[:, 0] = 127.0 * 2.0 ** torch.arange(-6, 0)  # scales that are powers of two
    weight[:, 1:] *= weight[:, :1] / 10
    weight = weight.clamp(-weight[:, :1], weight[:, :1])
    scale, zeros = weight[:, 0] / 127, torch.zeros(6, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(weight, scale, zeros, 0, -127, 127)
    assert torch.equal(AffineWeight(8, 0)(weight), theirs)
    whole = torch.fake_quantize_per_tensor_affine(weight, scale.max().item(), 0, -127, 127)
    assert torch.equal(AffineWeight(8, None)(weight), whole)


def test_channels_of_equal_maxima_are_rounded_as_one_tensor() -> None:
    weight = torch.randn(4, 9).clamp(-2, 2)
    weight[:, 0] = torch.tensor([2.0, -2.0, 2.0, -2.0])
    assert torch.equal(AffineWeight(8, 0)(weight), AffineWeight(8, None)(weight))


def test_scale_does_not_reach_zero_and_nan_is_not_hidden() -> None:
    assert AffineWeight(8, 0).codes(torch.zeros(2, 3))[1].tolist() == pytest.approx([1e-8, 1e-8])
    weight = torch.ones(2, 3)
    weight[0, 0] = math.nan
    assert AffineWeight(8, 0)(weight).isnan().any(1).tolist() == [True, False]


# The method -----------------------------------------------------------------------------------------------------------


def test_parts_follow_the_bits() -> None:
    weight = torch.randn(3, 4)
    method = Affine(weight_bits=4, activation_bits=6)
    assert len(method.weight(weight, 0)(weight)[0].unique()) <= 15
    activation = method.activation(signed=False)
    assert activation is not None
    assert not list(activation.parameters())
    assert method.of_bits(8) == Affine()
    assert method.of_bits(32) is None
    assert Affine(activation_bits=32).of_bits(4) == Affine(weight_bits=4, activation_bits=32)
    assert Affine(activation_bits=32).activation(signed=True) is None
    assert Affine(weight_bits=32).weight(weight, 0)(weight) is weight
    assert (Affine().folds, Affine(per_channel=False).folds, Affine.edge_bits) == (False, True, None)


@pytest.mark.parametrize("bits", [1, 9, 0, 16, 4.0, True])
def test_bits_without_levels_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match=r"expected weight_bits from 2 to 8, or 32 for float, got"):
        Affine(weight_bits=bits)
    with pytest.raises(InputError, match=r"expected activation_bits from 2 to 8, or 32 for float, got"):
        Affine(activation_bits=bits)


@pytest.mark.parametrize("averaging", [0.0, -0.1, 1.1, math.nan])
def test_averaging_is_a_share(averaging: float) -> None:
    with pytest.raises(InputError, match=r"expected averaging in \(0, 1\], got"):
        Affine(averaging=averaging)
