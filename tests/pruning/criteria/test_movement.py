"""Weights that grow and weights that shrink."""

import pytest
import torch

from lightning_prune.pruning.criteria.movement import Movement


def test_movement_tells_growing_from_shrinking_weights() -> None:
    weights = torch.tensor([0.1, -0.1, 2.0, -2.0], dtype=torch.float64)
    target = torch.tensor([1.0, -1.0, 1.5, -1.5], dtype=torch.float64)
    scores = torch.zeros(4, dtype=torch.float64)
    for _ in range(20):
        gradient = weights - target
        scores += Movement()((weights * gradient).unsqueeze(1))
        weights = weights - 0.05 * gradient
    assert (scores[:2] > 0).all()
    assert (scores[2:] < 0).all()
    assert Movement()(torch.tensor([[0.5, -0.2], [-1.0, 0.25]])).tolist() == pytest.approx([-0.3, 0.75])
