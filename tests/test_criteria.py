"""Criteria against float64 numpy, and against what their papers say of them."""

import numpy as np
import pytest
import torch

from lightning_prune.criteria.geometric_median import GeometricMedian
from lightning_prune.criteria.magnitude import Magnitude
from lightning_prune.criteria.mix import Mix
from lightning_prune.errors import InputError
from lightning_prune.masking import lowest


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
def test_magnitude_is_the_norm(p: float) -> None:
    weights = units().numpy()
    expected = np.abs(weights).max(axis=1) if p == float("inf") else (np.abs(weights) ** p).sum(axis=1) ** (1 / p)
    np.testing.assert_allclose(Magnitude(p)(units()).numpy(), expected, rtol=1e-12)


def test_geometric_median_is_the_sum_of_distances() -> None:
    weights = units().numpy()
    expected = [sum(np.sqrt(((one - other) ** 2).sum()) for other in weights) for one in weights]
    np.testing.assert_allclose(GeometricMedian()(units()).numpy(), expected, rtol=1e-12)


def test_geometric_median_removes_what_can_be_replaced_and_the_norm_what_is_small() -> None:
    filters = torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]])
    assert GeometricMedian()(filters).tolist() == [30, 27, 25, 28, 70]
    assert lowest(GeometricMedian()(filters), 2).nonzero().reshape(-1).tolist() == [1, 2]
    assert lowest(Magnitude()(filters), 2).nonzero().reshape(-1).tolist() == [0, 1]


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


@pytest.mark.parametrize(
    ("build", "message"), [(lambda: Magnitude(0), "norm order p"), (lambda: Mix(share=1), "share")]
)
def test_bad_values_are_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]
