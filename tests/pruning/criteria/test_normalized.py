"""Layers of all scales made equal."""

from collections.abc import Callable

import pytest
import torch

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.apoz import APoZ
from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.criteria.normalized import Normalized
from lightning_prune.pruning.criteria.taylor import Taylor


@pytest.mark.parametrize(("by", "sizes"), [("mean", (0.5, 1.5)), ("l2", (0.1**0.5, 0.9**0.5))])
def test_normalized_layers_of_all_scales_are_equal(by: str, sizes: tuple[float, ...]) -> None:
    layer = torch.tensor([[3.0, 4.0], [9.0, -12.0]])
    criterion = Normalized(by=by)  # type: ignore[arg-type]
    torch.testing.assert_close(criterion(layer), torch.tensor(sizes))
    torch.testing.assert_close(criterion(1e-3 * layer), criterion(layer))
    assert criterion(torch.zeros(2, 2)).tolist() == [0, 0]
    assert not torch.allclose(Normalized(GeometricMedian())(layer), criterion(layer))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Normalized(by="max"), "expected by to be one of mean, l2, got 'max'"),  # type: ignore[arg-type]
        (lambda: Normalized(Taylor()), "expected a criterion of the weights to normalize, got Taylor"),
        (lambda: Normalized(BatchNormScale()), "got BatchNormScale"),
        (lambda: Normalized(APoZ()), "got APoZ"),
    ],
)
def test_only_scores_of_weights_are_normalized(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
