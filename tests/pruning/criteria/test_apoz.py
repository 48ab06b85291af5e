"""Fractions of activations by hand."""

import torch

from lightning_prune.pruning.criteria.apoz import APoZ


def test_apoz_worked_by_hand() -> None:
    first, second = torch.ones(16), torch.ones(16)
    first[:5], second[3:9] = 0, 0
    assert APoZ()(torch.stack([torch.cat([first, second]), torch.zeros(32)])).tolist() == [1 - 11 / 32, 0]
    assert APoZ()(torch.tensor([[0.0, 0, 1, 2, 0, 3, 0, -0.0]])).tolist() == [1 - 0.625]
