"""LSQ and PACT against numbers worked by hand and their formulas in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from quantizer_family import close, rounded
from torch import Tensor

from lightning_prune.quantization.quantizers.lsq import LSQActivation, LSQWeight, lsq
from lightning_prune.quantization.quantizers.pact import pact


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
