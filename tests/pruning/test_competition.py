"""From scores to masks: exact numbers, stable order, and what is gone stays gone."""

import math

import pytest
import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.prunable_weight import PrunableWeight
from lightning_prune.pruning.quota import Quota


def rows_gone(units: Tensor, criterion: Criterion, sparsity: float) -> list[bool]:
    competition = Competition([PrunableWeight("w", units.shape, Channel())], [sparsity], Quota(sparsity))
    found: list[bool] = (~competition.choose(criterion, {"w": units})["w"][:, 0]).tolist()
    return found


def test_a_layer_is_never_emptied() -> None:
    assert rows_gone(torch.ones(3, 2), Magnitude(), 0.99) == [True, True, False]


def test_ties_do_not_change_the_number_and_go_in_order() -> None:
    assert rows_gone(torch.ones(1000, 4), Magnitude(), 0.4) == [True] * 400 + [False] * 600


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="diverged"):
        rows_gone(torch.tensor([[1.0], [math.nan]]), Magnitude(), 0.5)


def test_a_criterion_that_returns_the_weights_themselves_does_not_change_them() -> None:
    class Itself(Criterion):
        def __call__(self, units: Tensor) -> Tensor:
            return units[:, 0]

    weight = torch.tensor([[3.0], [1.0], [2.0]])
    competition = Competition([PrunableWeight("w", weight.shape, Channel())], [0.4], Quota(0.4))
    held = {"w": torch.tensor([[0.0], [1.0], [1.0]])}
    assert competition.choose(Itself(), {"w": weight}, held)["w"][:, 0].tolist() == [False, True, True]
    assert weight.tolist() == [[3], [1], [2]]


def test_a_schedule_has_to_end_at_every_sparsity() -> None:
    prunables = [PrunableWeight(name, torch.Size([4, 2]), Channel()) for name in "ab"]
    competition = Competition(prunables, [0.5, 0.75], Quota(0.5))
    competition.check_schedule(lambda progress, final: progress * final)
    with pytest.raises(InputError, match=r"reaches sparsity 0.75 at its end, got <function .*>, which ends at 0.5$"):
        competition.check_schedule(lambda progress, final: min(final, 0.5))
