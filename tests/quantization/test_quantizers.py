"""Quantizers against numbers worked by hand, their formulas in float64, and what all of them promise."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.affine import Affine
from lightning_prune.quantization.quantizers.bwn import BWN, BinaryWeight
from lightning_prune.quantization.quantizers.dorefa import DoReFa, DoReFaWeight, dorefa_weight, round_gradient
from lightning_prune.quantization.quantizers.lsq import LSQ, LSQActivation, LSQWeight, lsq
from lightning_prune.quantization.quantizers.pact import PACT, pact
from lightning_prune.quantization.quantizers.quantizer import Activation, Quantizer
from lightning_prune.quantization.quantizers.rounding import sign
from lightning_prune.quantization.quantizers.ttq import TTQ, TrainedTernaryWeight
from lightning_prune.quantization.quantizers.twn import TWN
from lightning_prune.quantization.quantizers.xnor import XNOR

ALL: list[Quantizer] = [
    Affine(),
    Affine(weight_bits=4, activation_bits=4, per_channel=False),
    LSQ(),
    LSQ(weight_bits=2, activation_bits=2),
    PACT(),
    PACT(weight_bits=1, activation_bits=2, alpha=2.0),
    DoReFa(),
    DoReFa(weight_bits=3, activation_bits=3, gradient_bits=4),
    BWN(),
    BWN(gradient="paper"),
    BWN(gradient="detach"),
    XNOR(),
    XNOR(scaling_map=True),
    TWN(),
    TWN(per_channel=True),
    TTQ(),
]
every = pytest.mark.parametrize("quantizer", ALL, ids=str)


def close(tensor: Tensor, expected: list[float], tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        tensor.detach().double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance
    )


def rounded(
    module: Callable[[Tensor], Tensor], values: list[float], grad: list[float] | None = None
) -> tuple[Tensor, Tensor]:
    """What a module makes of one filter, and the gradient behind it."""
    weight = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    out = module(weight)
    out.backward(torch.ones_like(out) if grad is None else torch.tensor([grad], dtype=torch.float64))
    assert weight.grad is not None
    return out.detach()[0], weight.grad[0]


def prepared(quantizer: Quantizer, signed: bool) -> Activation | None:
    """What rounds activations, having seen some."""
    activation = quantizer.activation(signed)
    if activation is not None:
        activation.quantizing = True
        x = torch.randn(64, 9)
        activation.observe(x if signed else x.relu())
    return activation


# One and three values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ("paper", [0.75, 1.5, -0.75, 0.375]),
        ("exact", [-0.125, 1.625, -1.125, 0.875]),
        ("detach", [0.5, 1.0, -0.5, 0.25]),
    ],
)
def test_bwn_by_hand(gradient: Any, expected: list[float]) -> None:
    values = [0.5, -1.0, 0.25, -0.25]
    out, grad = rounded(BinaryWeight(0, gradient), values, [1.0, 2.0, -1.0, 0.5])
    close(out, [0.5, -0.5, 0.5, -0.5])
    assert (out - torch.tensor(values)).square().sum() == 0.375
    close(grad, expected)


def test_bwn_gradient_is_that_of_its_formula_and_stops_beyond_one() -> None:
    weight = torch.tensor([[0.3, -1.5, 0.7], [0.2, 0.9, -0.1]], dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 3, dtype=torch.float64)
    BinaryWeight(0, "exact")(weight).backward(upstream)
    signs = weight.detach().sign()
    alpha = weight.detach().abs().mean(1, keepdim=True)
    expected = signs / 3 * (upstream * signs).sum(1, keepdim=True) + alpha * (weight.detach().abs() <= 1) * upstream
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, expected)


def test_bwn_does_not_count_pruned_weights() -> None:
    out, _ = rounded(BinaryWeight(0, "exact"), [0.5, -1.0, 0.0, 0.0])
    close(out[:2], [0.75, -0.75])


def test_a_filter_of_zeros_gets_a_gradient() -> None:
    weight = torch.randn(3, 4)
    weight[1] = 0
    weight.requires_grad_()
    out = BWN().layer(BWN().weight(weight, 0), None).rounded(weight)
    assert (out[1] == 0).all()
    upstream = torch.randn(4)
    out[1].backward(upstream)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad[1], upstream * weight[[0, 2]].abs().mean().detach())
    assert (weight.grad[[0, 2]] == 0).all()


def test_sign_of_zero_is_one_and_the_gradient_ends_at_one() -> None:
    edge = 1 + torch.finfo(torch.float32).eps
    x = torch.tensor([-math.inf, -edge, -1.0, -1e-45, -0.0, 0.0, 0.7, 1.0, edge, math.nan], requires_grad=True)
    y = sign(x)
    assert y[:-1].tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1]
    assert y[-1].isnan()
    y.backward(torch.full_like(y, 3.0))
    assert x.grad is not None
    assert x.grad[:-1].tolist() == [0, 0, 3, 3, 3, 3, 3, 3, 0]


def test_twn_by_hand() -> None:
    values = [0.9, -0.7, 0.5, -0.3, 0.2, -0.1, 0.05, 0.8]
    upstream = [float(number) for number in range(8)]
    out, grad = rounded(TWN().weight(torch.empty(0), 0), values, upstream)
    close(out, [0.725, -0.725, 0.725, 0, 0, 0, 0, 0.725])
    error = (out - torch.tensor(values, dtype=torch.float64)).square().sum().item()
    assert error == pytest.approx(0.23)
    magnitudes = sorted((abs(value) for value in values), reverse=True)
    best = max(sum(magnitudes[:count]) ** 2 / count for count in range(1, 9))
    assert error == pytest.approx(sum(value**2 for value in values) - best)
    assert grad.tolist() == upstream
    pruned, _ = rounded(TWN().weight(torch.empty(0), 0), [*values, 0.0, 0.0, 0.0])
    close(pruned[:8], out.tolist())


def test_twn_has_one_magnitude_a_filter_if_wanted() -> None:
    weight = torch.tensor([[1.0, -1.0, 0.1], [4.0, 0.2, 2.0]])
    assert TWN(per_channel=True).weight(weight, 0)(weight).tolist() == [[1, -1, 0], [3, 0, 3]]
    assert (
        TWN(per_channel=True)
        .weight(weight, 1)(weight.T)
        .equal(TWN(per_channel=True).weight(weight, 0)(weight).T.contiguous())
    )


def test_ttq_by_hand() -> None:
    values, upstream = [1.0, -0.6, 0.04, -0.05, 0.5, -0.2], [1.0, 2.0, 3.0, 4.0, -5.0, 6.0]
    module = TrainedTernaryWeight(0.05, torch.tensor([values]))
    close(torch.stack([module.positive, module.negative]), [0.75, 0.4])
    out, grad = rounded(module, values, upstream)
    close(out, [0.75, -0.4, 0, 0, 0.75, -0.4])
    close(grad, [0.75, 0.8, 3, 4, -3.75, 2.4])
    assert module.positive.grad is not None
    assert module.negative.grad is not None
    assert (module.positive.grad.item(), module.negative.grad.item()) == (-4, -8)


def test_ttq_begins_somewhere_without_weights_of_one_sign() -> None:
    module = TrainedTernaryWeight(0.05, torch.tensor([[1.0, 0.5, 0.0]]))
    close(torch.stack([module.positive, module.negative]), [0.75, 0.75])


# DoReFa ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "expected"),
    [(2, [1 / 3, -1, 1 / 3, 1 / 3]), (3, [5 / 7, -1, 3 / 7, 1 / 7]), (1, [0.4375, -0.4375, 0.4375, 0.4375])],
)
def test_dorefa_weights_by_hand(bits: int, expected: list[float]) -> None:
    out, grad = rounded(dorefa_weight(bits), [0.5, -1.0, 0.25, 1e-12])
    close(out, expected)
    close(grad, [1.0] * 4 if bits == 1 else [1.03263, 0.55144, 1.23427, 1.31304], tolerance=1e-5)


def test_dorefa_of_one_bit_has_one_scale_for_all_filters_and_does_not_count_pruned_weights() -> None:
    weight = torch.tensor([[0.5, -1.0], [0.0, 0.25]])
    scale = pytest.approx(1.75 / 3)
    assert dorefa_weight(1)(weight).abs().unique().tolist() == [scale]


def test_dorefa_activations_by_hand() -> None:
    activation = DoReFa().activation(signed=False)
    assert activation is not None
    out, grad = rounded(activation.round, [-0.2, 0.1, 0.4, 0.6, 1.3])
    close(out, [0, 0, 1 / 3, 2 / 3, 1])
    assert grad.tolist() == [0, 1, 1, 1, 0]
    both = DoReFa(activation_bits=3).activation(signed=True)
    assert both is not None
    out, grad = rounded(both.round, [-2.0, -0.6, -0.1, 0.0, 0.2, 0.9, 1.1])
    close(out, [-1, -2 / 3, 0, 0, 1 / 3, 1, 1])
    assert grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_gradients_are_rounded_sample_by_sample() -> None:
    grad = torch.tensor([[0.5, -1.0, 0.25], [0.05, -0.1, 0.025], [0.0, 0.0, 0.0]])
    out = round_gradient(grad, 2, torch.zeros_like(grad))
    close(out[0], [1 / 3, -1, 1 / 3])
    torch.testing.assert_close(out[1], out[0] / 10)
    assert (out[2] == 0).all()


def test_noise_makes_the_rounding_of_gradients_right_on_average() -> None:
    grad = torch.tensor([[0.1, 0.6, -0.9, 1.0]])
    draws = torch.stack([round_gradient(grad, 2, torch.rand_like(grad) - 0.5) for _ in range(4000)])
    assert len(draws.unique()) == 4
    torch.testing.assert_close(draws.mean(0), grad, rtol=0, atol=0.03)


def test_a_layer_of_rounded_gradients_uses_them_and_computes_as_any_other() -> None:
    quantizer, x = DoReFa(weight_bits=32, activation_bits=32, gradient_bits=2), torch.randn(5, 4)
    weight, bias = torch.randn(3, 4, requires_grad=True), torch.randn(3, requires_grad=True)
    layer = quantizer.layer(quantizer.weight(weight, 0), None)
    out = layer(F.linear, None, x, weight, bias)
    assert torch.equal(out, F.linear(x, weight, bias))
    upstream = torch.randn(5, 3)
    out.relu_().backward(upstream)
    assert bias.grad is not None
    seen = torch.autograd.grad(layer(F.linear, None, x, weight, bias), bias, upstream)[0]
    most = upstream.abs().amax(1)
    levels = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
    possible = (levels * most.unsqueeze(1)).T
    sums = {round(s.item(), 4) for s in torch.cartesian_prod(*possible.T).sum(1)}
    assert all(round(one.item(), 4) in sums for one in seen)


def test_one_bit_has_no_level_for_both_signs_and_zero() -> None:
    assert DoReFa(activation_bits=1).activation(signed=False) is not None
    with pytest.raises(
        InputError, match="expected activation_bits from 2 on, since a layer reads numbers of both signs"
    ):
        DoReFa(activation_bits=1).activation(signed=True)


# Learned levels -------------------------------------------------------------------------------------------------------


def test_lsq_by_hand() -> None:
    values = [-0.9, -0.3, 0.1, 0.4, 0.62, 2.0]
    step = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    out, grad = rounded(lambda v: lsq(v, step, -4, 3, 6), values)
    close(out, [-1, -0.25, 0, 0.5, 0.5, 0.75])
    assert grad.tolist() == [1, 1, 1, 1, 1, 0]
    assert step.grad is not None
    assert step.grad.item() == pytest.approx(2.32 * 0.235702, abs=1e-6)
    for one, expected in zip(values, [-0.4, 0.2, -0.4, 0.4, -0.48, 3], strict=True):
        (alone,) = torch.autograd.grad(lsq(torch.tensor(one, dtype=torch.float64), step, -4, 3, 1), step)
        assert alone.item() * 3**0.5 == pytest.approx(expected)
    assert LSQWeight(3, torch.tensor([values])).step.item() == pytest.approx(0.831384, abs=1e-6)
    assert LSQWeight(3, torch.tensor([[*values, 0.0, 0.0]])).step.item() == pytest.approx(0.831384, abs=1e-6)


def test_lsq_is_its_formula() -> None:
    v = torch.randn(200, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(200, dtype=torch.float64)
    bounded = (v / s).clamp(-4, 3)
    expected = (bounded + (bounded.round() - bounded).detach()) * s
    to_v, to_s = torch.autograd.grad(expected, (v, s), upstream)
    out = lsq(v, s, -4, 3, 50)
    torch.testing.assert_close(out, expected)
    grads = torch.autograd.grad(out, (v, s), upstream)
    torch.testing.assert_close(grads, (to_v, to_s / 150**0.5))


@pytest.mark.parametrize("function", [lambda x, s: lsq(x, s, -4, 3, 60), lambda x, s: pact(x, s, -3, 3)])
def test_the_order_in_memory_does_not_matter(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, s, upstream = torch.randn(2, 3, 4, 5), torch.tensor(0.3, requires_grad=True), torch.randn(2, 3, 4, 5)
    results = []
    for layout in ([0, 1, 2, 3], [0, 2, 3, 1], [3, 1, 0, 2]):
        back = [layout.index(dim) for dim in range(4)]
        permuted = x.permute(layout).contiguous().permute(back).requires_grad_()
        results.append(torch.autograd.grad(function(permuted, s), (permuted, s), upstream))
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])


def test_lsq_takes_its_first_step_from_the_first_batch_that_has_numbers() -> None:
    activation = LSQActivation(2, signed=False)
    limit = activation.limit()
    assert limit is not None
    assert limit.isinf()
    for batch in (torch.zeros(2, 3), torch.full((2, 3), math.nan), torch.empty(0, 3)):
        activation.observe(batch)
        assert activation.step == 1
    activation.observe(torch.tensor([[1.0, 3.0]]))
    first = 2 * 2 / 3**0.5
    assert activation.step.item() == pytest.approx(first)
    assert activation.limit() == activation.step.detach() * 3
    resumed = LSQActivation(2, signed=False)
    resumed.load_state_dict(activation.state_dict())
    resumed.observe(torch.tensor([[100.0]]))
    assert torch.equal(resumed.step, activation.step)
    assert LSQActivation(2, signed=True).low == -2


def test_a_step_and_a_bound_below_zero_still_learn() -> None:
    x = torch.tensor([[0.5, 2.0]])
    step = torch.tensor(-0.1, requires_grad=True)
    out = lsq(x, step, 0, 3, 1)
    assert out.max().item() == pytest.approx(3e-8)
    out.sum().backward()
    assert step.grad is not None
    assert step.grad.item() == pytest.approx(2 * 3 / 3**0.5)
    bound = torch.tensor(-0.1, requires_grad=True)
    pact(x, bound, 0, 3).sum().backward()
    assert bound.grad is not None
    assert bound.grad.item() == pytest.approx(2)


def test_pact_by_hand() -> None:
    bound = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    out, grad = rounded(lambda x: pact(x, bound, 0, 3), [-1.0, 0.3, 0.9, 1.6, 2.5], [1.0, 2.0, 3.0, 4.0, 5.0])
    close(out, [0, 0, 2 / 3, 4 / 3, 2])
    assert grad.tolist() == [0, 2, 3, 4, 0]
    assert bound.grad is not None
    assert bound.grad.item() == pytest.approx(5)


@pytest.mark.parametrize("low", [0, -7])
def test_pact_is_its_formula(low: int) -> None:
    x = 2 * torch.randn(200, dtype=torch.float64)
    x.requires_grad_()
    a = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(200, dtype=torch.float64)
    positive = 0.5 * (x.abs() - (x - a).abs() + a)
    y = positive if low == 0 else positive - 0.5 * (x.abs() - (x + a).abs() + a)
    expected = y + ((y * 7 / a).round() * a / 7 - y).detach()
    out = pact(x, a, low, 7)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(
        torch.autograd.grad(out, (x, a), upstream), torch.autograd.grad(expected, (x, a), upstream)
    )


# XNOR-Net -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("by_name", [True, False])
def test_scaling_map_is_the_mean_magnitude_under_the_filter(groups: int, by_name: bool) -> None:
    quantizer = XNOR(scaling_map=True)
    x, bias = torch.randn(2, 4, 9, 8), torch.randn(6)
    weight = torch.randn(6, 4 // groups, 3, 3)
    layer = quantizer.layer(quantizer.weight(weight, 0), prepared(quantizer, signed=True))
    named = {"bias": bias, "stride": 2, "padding": (2, 1), "dilation": 2, "groups": groups}
    out = layer(F.conv2d, None, x, weight, **named) if by_name else layer(F.conv2d, None, x, weight, *named.values())
    binary = F.conv2d(x.sign(), weight.sign(), None, 2, (2, 1), 2, groups)
    magnitudes = x.abs().reshape(2, groups, -1, 9, 8).mean(2)
    patches = F.unfold(magnitudes, 3, dilation=2, padding=(2, 1), stride=2).reshape(2, groups, 9, -1).mean(2)
    scaled = binary.reshape(2, groups, 6 // groups, -1) * patches.unsqueeze(2)
    expected = scaled.reshape(binary.shape) * weight.abs().mean((1, 2, 3)).reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    torch.testing.assert_close(out, expected)
    assert layer.input is not None
    layer.input.quantizing = False
    alone = F.conv2d(x, layer.rounded(weight), bias, 2, (2, 1), 2, groups)
    torch.testing.assert_close(layer(F.conv2d, None, x, weight, **named), alone)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_scaling_map_of_a_linear_layer_is_the_mean_magnitude(shape: tuple[int, ...]) -> None:
    quantizer, x, weight, bias = XNOR(scaling_map=True), torch.randn(shape), torch.randn(4, 5), torch.randn(4)
    layer = quantizer.layer(quantizer.weight(weight, 0), prepared(quantizer, signed=True))
    expected = x.sign() @ weight.sign().T * weight.abs().mean(1) * x.abs().mean(-1, keepdim=True) + bias
    torch.testing.assert_close(layer(F.linear, None, x, weight, bias), expected)


def test_scaling_map_of_a_transposed_convolution_is_refused() -> None:
    with pytest.raises(InputError, match="expected scaling_map=False, since a layer is a transposed convolution"):
        XNOR(scaling_map=True).weight(torch.randn(3, 4, 2, 2), 1)


# What all promise -----------------------------------------------------------------------------------------------------


def conv(quantizer: Quantizer, weight: Tensor, signed: bool = True) -> nn.Module:
    return quantizer.layer(quantizer.weight(weight.detach(), 0), prepared(quantizer, signed))


@every
def test_zeros_stay_zero_and_get_the_gradient_of_any_other(quantizer: Quantizer) -> None:
    weight = torch.randn(6, 4, 3, 3) / 3
    kept = torch.rand_like(weight) > 0.5
    kept[2] = False
    weight = (weight * kept).requires_grad_()
    layer = conv(quantizer, weight)
    out = layer.rounded(weight)  # type: ignore[operator]
    assert ((out == 0) | kept).all()
    assert (out != 0).any()
    upstream = torch.randn_like(out)
    out.backward(upstream)
    assert weight.grad is not None
    small = upstream.abs() > 1e-3
    assert ((weight.grad != 0) | kept | ~small).all()


@every
@pytest.mark.parametrize("signed", [True, False])
def test_trains_all_that_is_learned_in_any_format(quantizer: Quantizer, signed: bool) -> None:
    weight = (torch.randn(6, 4, 3, 3) / 3).requires_grad_()
    layer = conv(quantizer, weight, signed)
    x = torch.randn(2, 4, 5, 5)
    x[0, 0, 2, 2] = 20.0  # beyond what PACT begins with
    x = (x if signed else x.relu()).requires_grad_()
    layer(F.conv2d, None, x, weight, padding=1).square().sum().backward()
    for tensor in (x, weight, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).any()
    half = layer(F.conv2d, None, x.bfloat16(), weight.bfloat16(), padding=1)
    assert half.dtype == torch.bfloat16
    assert layer(F.conv2d, None, x[:0], weight, padding=1).shape == (0, 6, 5, 5)


@every
def test_copies_and_states_compute_the_same(quantizer: Quantizer) -> None:
    weight, x = torch.randn(6, 4) / 3, torch.randn(7, 4)
    layer = conv(quantizer, weight)
    fresh = quantizer.layer(quantizer.weight(torch.randn(6, 4), 0), quantizer.activation(True))
    fresh.load_state_dict(layer.state_dict())
    if fresh.input is not None:
        fresh.input.quantizing = True
    expected = layer(F.linear, None, x, weight)
    assert torch.equal(fresh(F.linear, None, x, weight), expected)
    assert torch.equal(copy.deepcopy(layer)(F.linear, None, x, weight), expected)


@every
def test_nothing_divides_by_zero_and_nothing_hides_nan(quantizer: Quantizer) -> None:
    zeros = torch.zeros(3, 4, requires_grad=True)
    layer = conv(quantizer, zeros)
    out = layer.rounded(zeros)  # type: ignore[operator]
    out.backward(torch.randn(3, 4))
    assert (out == 0).all()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()
    poisoned = torch.randn(3, 4)
    poisoned[1, 2] = math.nan
    assert layer.rounded(poisoned)[1, 2].isnan()  # type: ignore[operator]
    if layer.input is not None:
        assert layer.input(poisoned)[1, 2].isnan()


@every
@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_as_many_as_bits_have_and_stay_where_they_are(quantizer: Quantizer, signed: bool) -> None:
    weight = torch.randn(1, 5000) / 3
    module = quantizer.weight(weight, 0)
    out = module(weight)
    names = {"BWN": 2, "XNOR": 2, "TWN": 3, "TTQ": 3}
    bits = getattr(quantizer, "weight_bits", None)
    levels = names[type(quantizer).__name__] if bits is None else 2**bits
    assert 1 < len(out.unique()) <= levels
    if not isinstance(module, DoReFaWeight):
        torch.testing.assert_close(module(out), out)
    activation = prepared(quantizer, signed)
    if activation is not None:
        x = torch.linspace(-12, 12, 5000) if signed else torch.linspace(0, 12, 5000)
        y = activation.round(x)
        assert 1 <= len(y.unique()) <= 2 ** getattr(quantizer, "activation_bits", 1)
        torch.testing.assert_close(activation.round(y), y)


@pytest.mark.parametrize("signed", [True, False])
@every
def test_a_channel_of_zeros_is_still_zero(quantizer: Quantizer, signed: bool) -> None:
    activation = prepared(quantizer, signed)
    if activation is not None:
        assert activation.round(torch.zeros(3)).tolist() == [0.0] * 3


@pytest.mark.parametrize("kind", [Affine, LSQ, PACT, DoReFa])
def test_other_bits(kind: Any) -> None:
    quantizer = kind(weight_bits=3, activation_bits=32)
    assert quantizer.of_bits(8) == kind(weight_bits=8, activation_bits=32)
    assert kind().of_bits(5) == kind(weight_bits=5, activation_bits=5)
    assert quantizer.of_bits(32) is None
    assert quantizer.activation(signed=True) is None
    assert torch.equal(
        kind(weight_bits=32).weight(torch.ones(2, 2), 0)(torch.full((2, 2), 0.3)), torch.full((2, 2), 0.3)
    )


@pytest.mark.parametrize("kind", [BWN, XNOR, TWN, TTQ])
def test_fixed_levels_have_no_other_bits(kind: Any) -> None:
    assert kind().of_bits(32) is None
    with pytest.raises(InputError, match=f"since {kind.__name__} has fixed levels, got 8"):
        kind().of_bits(8)


def test_edges_are_as_in_the_papers() -> None:
    assert [kind.edge_bits for kind in (LSQ, PACT, DoReFa, BWN, XNOR, TWN, TTQ)] == [8, 32, 32, 32, 32, 32, 32]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LSQ(weight_bits=1), "expected weight_bits from 2 to 8, or 32 for float, got 1"),
        (lambda: LSQ(activation_bits=16), "expected activation_bits from 2 to 8, or 32 for float, got 16"),
        (lambda: PACT(weight_bits=0), "expected weight_bits from 1 to 8, or 32 for float, got 0"),
        (lambda: PACT(activation_bits=1), "expected activation_bits from 2 to 8, or 32 for float, got 1"),
        (lambda: PACT(alpha=0.0), "expected alpha above 0, where inputs are cut off, got 0.0"),
        (lambda: DoReFa(weight_bits=9), "expected weight_bits from 1 to 8, or 32 for float, got 9"),
        (lambda: DoReFa(activation_bits=0), "expected activation_bits from 1 to 8, or 32 for float, got 0"),
        (lambda: DoReFa(gradient_bits=1), "expected gradient_bits from 2 to 8, or 32 for float, got 1"),
        (lambda: BWN(gradient="none"), "expected gradient to be one of exact, paper, detach, got 'none'"),  # type: ignore[arg-type]
        (lambda: XNOR(gradient="none"), "expected gradient to be one of exact, paper, detach, got 'none'"),  # type: ignore[arg-type]
        (lambda: TWN(threshold=1.0), r"expected threshold in \(0, 1\), a multiple of the mean magnitude, got 1.0"),
        (lambda: TTQ(threshold=0.0), r"expected threshold in \(0, 1\), a multiple of the greatest weight, got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], Quantizer], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "conf/quantizer").glob("*.yaml")), ids=lambda p: p.stem
)
def test_command_line_options_are_the_defaults(path: Path) -> None:
    options = OmegaConf.load(path)
    quantizer = instantiate(options)
    assert quantizer == type(quantizer)()
    assert set(options) - {"_target_"} == set(vars(quantizer))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.13's own compiler does
def test_the_fast_parts_compile() -> None:
    for quantizer in (LSQ(), PACT(), XNOR()):
        weight = (torch.randn(6, 4, 3, 3) / 3).requires_grad_()
        layer = conv(quantizer, weight)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        x = torch.randn(2, 4, 5, 5, requires_grad=True)
        results = [one(F.conv2d, None, x, weight) for one in (compiled, layer)]
        torch.testing.assert_close(*results)
        learned = [x, weight, *layer.parameters()]
        grads = [torch.autograd.grad(result.square().sum(), learned) for result in results]
        torch.testing.assert_close(*grads)
