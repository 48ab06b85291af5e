"""The norm against numpy."""

import numpy as np
import pytest
import torch

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.magnitude import Magnitude


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
def test_magnitude_is_the_norm(p: float) -> None:
    weights = units().numpy()
    expected = np.abs(weights).max(axis=1) if p == float("inf") else (np.abs(weights) ** p).sum(axis=1) ** (1 / p)
    np.testing.assert_allclose(Magnitude(p)(units()).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("p", [0, -1.0, float("nan")])
def test_what_is_no_order_of_a_norm_is_refused(p: float) -> None:
    with pytest.raises(InputError, match=r"expected p in \(0, inf\], got"):
        Magnitude(p)
