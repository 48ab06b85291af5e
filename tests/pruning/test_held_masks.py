"""Masks that hide nothing, and that stay in force."""

import math

import pytest
import torch
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.pruning.held_masks import HeldMasks, apply_masks, momenta


def test_masks_zero_what_they_remove_and_show_what_is_not_finite() -> None:
    weight = torch.tensor([[1.0, 2.0], [math.nan, math.inf]])
    apply_masks([weight], [torch.tensor([[0.0], [0.0]])])
    assert weight[0].tolist() == [0.0, 0.0]
    assert weight[1].isnan().all()


@pytest.mark.parametrize(("optimizer", "number"), [(torch.optim.SGD, 1), (torch.optim.AdamW, 2)])
def test_running_averages_of_a_parameter_are_found(optimizer: type, number: int) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 2))
    made = optimizer([weight], lr=0.1, **({"momentum": 0.9} if number == 1 else {}))
    assert momenta([made], [weight]) == [[]]
    weight.square().sum().backward()
    made.step()
    (found,) = momenta([made], [weight])
    assert [average.shape for average in found] == [weight.shape] * number


def test_other_masks_of_the_same_shapes_take_the_place_of_those_in_force() -> None:
    model = nn.Linear(3, 2)
    held = HeldMasks(model, {"weight": torch.tensor([[True, False, True]] * 2)})
    other = {"weight": torch.tensor([[False, False, True]] * 2)}
    assert held.replace(other)
    assert torch.equal(held.masks["weight"], other["weight"])
    assert not held.replace({"weight": torch.ones(2, 1, dtype=torch.bool)})
    assert not held.replace({"bias": torch.ones(2, dtype=torch.bool)})
    held.enforce()
    assert (model.weight == 0).sum() == 4
    with pytest.raises(InputError, match="one of bias that does not fit"):
        HeldMasks(model, {"bias": torch.ones(3, dtype=torch.bool)})
