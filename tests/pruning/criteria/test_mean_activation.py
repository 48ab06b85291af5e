"""The mean against numpy."""

import numpy as np
import torch

from lightning_prune.pruning.criteria.mean_activation import MeanActivation


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_mean_activation() -> None:
    np.testing.assert_allclose(MeanActivation()(units()).numpy(), np.abs(units().numpy()).mean(axis=1), rtol=1e-12)
