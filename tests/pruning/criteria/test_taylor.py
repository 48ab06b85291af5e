"""First-order changes by hand."""

import pytest
import torch

from lightning_prune.pruning.criteria.gate_taylor import GateTaylor
from lightning_prune.pruning.criteria.taylor import Taylor


def test_taylor_worked_by_hand() -> None:
    gradients, weights = torch.tensor([[0.2, -0.3, 0.1]]), torch.tensor([[1.0, 0.5, -2.0]])
    assert Taylor()(gradients * weights).item() == pytest.approx(0.1025)
    assert GateTaylor()(gradients * weights).item() == pytest.approx(0.0225)
    single = torch.tensor([1.0, -2.0, 0.5]) * torch.tensor([0.3, 0.1, -4.0])
    torch.testing.assert_close(Taylor()(single.unsqueeze(1)), torch.tensor([0.09, 0.04, 4.0]))
