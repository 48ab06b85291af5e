"""Distances to all others, against float64 numpy and by hand."""

import numpy as np
import pytest
import torch

from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.lowest import lowest


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_geometric_median_is_the_sum_of_distances() -> None:
    weights = units().numpy()
    expected = [sum(np.sqrt(((one - other) ** 2).sum()) for other in weights) for one in weights]
    np.testing.assert_allclose(GeometricMedian()(units()).numpy(), expected, rtol=1e-12)


def test_geometric_median_removes_what_can_be_replaced_and_the_norm_what_is_small() -> None:
    filters = torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]])
    assert GeometricMedian()(filters).tolist() == [30, 27, 25, 28, 70]
    assert lowest([GeometricMedian()(filters)], 2)[0].nonzero().reshape(-1).tolist() == [1, 2]
    assert lowest([Magnitude()(filters)], 2)[0].nonzero().reshape(-1).tolist() == [0, 1]


def test_geometric_median_does_not_see_translation_or_order_and_scales() -> None:
    scores, order = GeometricMedian()(units()), torch.randperm(24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(GeometricMedian()(units() + 7.5), scores)
    torch.testing.assert_close(GeometricMedian()(units()[order]), scores[order])
    torch.testing.assert_close(GeometricMedian()(-3 * units()), 3 * scores)
    assert not torch.allclose(Magnitude()(units() + 7.5), Magnitude()(units()))


def test_opposite_filters_are_not_the_same() -> None:
    assert GeometricMedian()(torch.tensor([[-3.0], [3.0], [1.0]])).tolist() == [10, 8, 6]


def test_equal_filters_have_equal_scores_even_when_large() -> None:
    filters = (1e4 + units()).float()
    filters[5] = filters[3]
    scores = GeometricMedian()(filters)
    assert scores[5] == scores[3]
    torch.testing.assert_close(scores.double(), GeometricMedian()(filters.double()), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 1), (500, 1), (300, 4)])
def test_geometric_median_of_many_units_is_that_of_all_pairs(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_prune.pruning.criteria.geometric_median.PAIRS", 1000)
    units = torch.randn(count, size, generator=torch.Generator().manual_seed(0))
    pairs = (units.double()[:, None] - units.double()[None]).norm(dim=2).sum(dim=1)
    torch.testing.assert_close(GeometricMedian()(units).double(), pairs, rtol=1e-5, atol=1e-5)
