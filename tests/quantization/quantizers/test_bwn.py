"""Filters of one bit against numbers worked by hand."""

from typing import Any

import pytest
import torch
from quantizer_family import close, rounded

from lightning_prune.quantization.quantizers.bwn import BWN, BinaryWeight


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
