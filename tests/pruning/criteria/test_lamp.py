"""LAMP against its definition."""

import numpy as np
import torch

from lightning_prune.pruning.criteria.lamp import LAMP


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_lamp_is_its_definition() -> None:
    weights = units()
    weights[[3, 7]] = 0
    weights[11] = weights[5]
    norms = np.linalg.norm(weights.numpy(), axis=1)
    order = sorted(range(24), key=lambda u: (norms[u], u))
    squares = [norms[u] ** 2 for u in order]
    expected = {u: squares[place] / sum(squares[place:]) for place, u in enumerate(order)}
    scores = LAMP()(weights)
    np.testing.assert_allclose(scores.numpy(), [expected[u] for u in range(24)], rtol=1e-6)
    assert scores[3] == scores[7] == 0
    assert scores[5] < scores[11]


def test_lamp_keeps_the_largest_of_each_layer_and_the_order_of_a_large_one() -> None:
    large = 1e-3 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    scores = LAMP()(large)
    assert scores.dtype == torch.float32
    assert scores.max() == 1
    assert (scores[large.abs().view(-1).argsort(stable=True)].diff() >= 0).all()
    assert LAMP()(torch.zeros(3, 2)).tolist() == [0, 0, 0]
