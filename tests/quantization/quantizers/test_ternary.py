"""Weights of three values, TWN and TTQ, against numbers worked by hand."""

import pytest
import torch
from quantizer_family import close, rounded

from lightning_prune.quantization.quantizers.ttq import TrainedTernaryWeight
from lightning_prune.quantization.quantizers.twn import TWN


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
