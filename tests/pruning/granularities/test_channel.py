"""Slices along one dimension."""

from typing import Any

import pytest
import torch
from cutting import CONV, LINEAR, check_cut, removed

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.channel import Channel


@pytest.mark.parametrize(("granularity", "shape", "units"), [(Channel(), CONV, 8), (Channel(dim=1), LINEAR, 12)])
def test_channel_cuts_into_so_many_units(granularity: Channel, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


def test_a_channel_is_what_its_name_says() -> None:
    assert removed(Channel(dim=1), 5, LINEAR) == [(row, 5) for row in range(8)]


def test_channels_of_any_dimension() -> None:
    weight = torch.arange(24.0).view(2, 3, 2, 2)
    units = Channel(1).units(weight)
    assert units[2].tolist() == [8, 9, 10, 11, 20, 21, 22, 23]
    mask = Channel(1).expand(torch.tensor([True, False, True]), (2, 3, 1, 1))
    assert (weight * mask)[:, 1].abs().sum() == 0
    assert torch.equal((weight * mask)[:, [0, 2]], weight[:, [0, 2]])
    assert Channel().units(torch.arange(3)).tolist() == [[0], [1], [2]]


def test_channels_are_coupled_unless_inputs_are_cut_layer_by_layer() -> None:
    assert [Channel(dim, "independent").coupled for dim in (0, 1)] == [True, False]
    assert [Channel(dim, "inner").coupled for dim in (0, 1)] == [True, True]


@pytest.mark.parametrize("dim", [2, -1, True, 0.0, None])
def test_other_dimensions_are_refused_at_once(dim: Any) -> None:
    with pytest.raises(InputError, match="expected dim, 0 for filters or 1 for input channels, to be one of 0, 1, got"):
        Channel(dim=dim)
