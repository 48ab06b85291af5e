"""Limits of how far what was zeroed grows back."""

import math

import torch
from torch import nn

from lightning_prune.pruning.norm_limits import NormLimits, limit_norms, slice_norms


def test_norms_are_limited_and_directions_kept() -> None:
    weight = torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    limit = torch.tensor([2.5, math.inf, 1.0]).view(3, 1, 1)
    assert slice_norms(weight, limit).reshape(-1).tolist() == [5.0, 5.0, 0.0]
    limit_norms([weight], [limit])
    assert weight.tolist() == [[[1.5, 2.0]], [[3.0, 4.0]], [[0.0, 0.0]]]


def test_what_is_zeroed_gets_a_limit_once_and_what_stays_is_free() -> None:
    module = nn.Linear(2, 3, bias=False)
    limits, weight = NormLimits(), module.weight.data
    weight.copy_(torch.tensor([[3.0, 4.0], [6.0, 8.0], [1.0, 0.0]]))
    limits.note("weight", weight, torch.tensor([[0.0], [1.0], [0.0]]), factor=2.0)
    assert limits.limits["weight"].flatten().tolist() == [10.0, math.inf, 2.0]
    weight[0] = 0  # it has not grown back when it is zeroed for the second time
    limits.note("weight", weight, torch.tensor([[0.0], [0.0], [1.0]]), factor=1.0)
    assert limits.limits["weight"].flatten().tolist() == [10.0, 10.0, math.inf]
    weight.fill_(50.0)
    limits.enforce(module)
    torch.testing.assert_close(weight.norm(dim=1), torch.tensor([10.0, 10.0, 50.0 * 2**0.5]))
