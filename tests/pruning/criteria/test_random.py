"""Chance that repeats itself."""

import pytest
import torch

from lightning_prune.pruning.criteria.random import Random


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_random_follows_from_seed_and_weights_alone() -> None:
    state = torch.get_rng_state()
    scores = Random()(units())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(Random()(units().clone()), scores)
    assert torch.equal(Random()(units().t().contiguous().t()), scores)
    others = [Random(seed=1)(units()), Random()(units(seed=1)), Random()(units().flip(0))]
    for one in [*others, Random()(units().bfloat16())]:
        assert len(set(one.tolist()) & set(scores.tolist())) == 0


def test_random_is_uniform_and_blind_to_size() -> None:
    weights = torch.arange(10_000.0).unsqueeze(1)
    scores = Random()(weights)
    assert float(scores.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(scores.var()) == pytest.approx(1 / 12, abs=0.004)
    assert abs(float(torch.corrcoef(torch.stack([scores, weights.view(-1)]))[0, 1])) < 0.04
