"""What every criterion in conf/ does."""

import pytest
import torch
from configured import built, options

from lightning_prune.pruning.criteria.criterion import Criterion


@pytest.mark.parametrize("name", options("criterion"))
@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (24, 45)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_criterion_gives_one_finite_score_a_unit_and_changes_nothing(
    name: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    units = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    before, state = units.clone(), torch.get_rng_state()
    scores = built("criterion", name)(units)
    assert scores.shape == shape[:1]
    assert scores.is_floating_point()
    assert scores.isfinite().all()
    assert torch.equal(built("criterion", name)(units), scores)
    assert torch.equal(units, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", options("criterion"))
def test_every_criterion_is_a_value_with_stages_that_add_up(name: str) -> None:
    criterion = built("criterion", name)
    assert isinstance(criterion, Criterion)
    assert criterion == built("criterion", name)
    assert sum(share for _, share in criterion.stages) == 1
    assert all((one.needs, one.reads) == (criterion.needs, criterion.reads) for one, _ in criterion.stages)
