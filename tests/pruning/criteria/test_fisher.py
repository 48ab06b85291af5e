"""Squared gradients by hand."""

import torch

from lightning_prune.pruning.criteria.fisher import Fisher


def test_fisher_worked_by_hand() -> None:
    assert Fisher()(torch.tensor([[2.0, -1.0], [0.0, 0.0]])).tolist() == [2.5, 0.0]
