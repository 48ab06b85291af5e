"""DoReFa against numbers worked by hand."""

import pytest
import torch
from quantizer_family import close, rounded
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.dorefa import DoReFa, dorefa_weight, round_gradient


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
