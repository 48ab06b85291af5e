"""Scales by hand."""

import torch

from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale


def test_batch_norm_scale_is_the_mean_absolute_scale() -> None:
    scales = torch.tensor([[-0.5, 0.25], [0.1, 0.1], [0.0, 0.0]])
    torch.testing.assert_close(BatchNormScale()(scales), torch.tensor([0.375, 0.1, 0.0]))
