"""Exact counts, stable choices, and masks that hide nothing."""

import math

import pytest
import torch

from lightning_prune.errors import InputError
from lightning_prune.pruning.counts import apply_masks, check_sparsity, count, limit_norms, momenta, prune, slice_norms
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.granularities.channel import Channel


def test_counts_are_exact_where_floats_are_not() -> None:
    cases = [(10, 0.1), (16, 0.3), (20, 0.2), (32, 0.3), (64, 0.4)]
    assert [int(n * (1 - (1 - s))) for n, s in cases] == [0, 4, 3, 9, 25]  # the trap in the authors' code
    assert [count(n, s, "floor") for n, s in cases] == [1, 4, 4, 9, 25]
    assert [count(n, s, "round") for n, s in cases] == [1, 5, 4, 10, 26]


def test_a_layer_is_never_emptied() -> None:
    assert [count(n, 0.99) for n in (1, 2, 3)] == [0, 1, 2]
    assert prune(torch.ones(3, 2), Magnitude(), 0.99).tolist() == [True, True, False]


def test_ties_do_not_change_the_number_and_go_in_order() -> None:
    assert prune(torch.ones(1000, 4), Magnitude(), 0.4).nonzero().reshape(-1).tolist() == list(range(400))


def test_nan_is_refused() -> None:
    with pytest.raises(InputError, match="diverged"):
        prune(torch.tensor([[1.0], [math.nan]]), Magnitude(), 0.5)


@pytest.mark.parametrize(("channels", "expected"), [(16, 5), (32, 12), (64, 25)])
def test_mix_rounds_both_counts_on_their_own(channels: int, expected: int) -> None:
    units = torch.randn(channels, 27, generator=torch.Generator().manual_seed(channels))
    assert int(prune(units, Mix(share=0.25), 0.4, "floor").sum()) == expected


def test_mix_measures_distances_among_the_survivors_only() -> None:
    # By norm goes 0; among 1, 3, 6, 20 the sums are 26, 22, 22, 50: 3 goes first. With 0 they would be 27, 25, 28, 70.
    units = torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]])
    assert prune(units, Mix(share=0.5), 0.4, "floor").tolist() == [True, False, True, False, False]


def test_masks_zero_what_they_remove_and_show_what_is_not_finite() -> None:
    weight = torch.tensor([[1.0, 2.0], [math.nan, math.inf]])
    apply_masks([weight], [torch.tensor([[0.0], [0.0]])])
    assert weight[0].tolist() == [0.0, 0.0]
    assert weight[1].isnan().all()


def test_norms_are_limited_and_directions_kept() -> None:
    weight = torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    limit = torch.tensor([2.5, math.inf, 1.0]).view(3, 1, 1)
    assert slice_norms(weight, limit).reshape(-1).tolist() == [5.0, 5.0, 0.0]
    limit_norms([weight], [limit])
    assert weight.tolist() == [[[1.5, 2.0]], [[3.0, 4.0]], [[0.0, 0.0]]]


@pytest.mark.parametrize(("optimizer", "number"), [(torch.optim.SGD, 1), (torch.optim.AdamW, 2)])
def test_running_averages_of_a_parameter_are_found(optimizer: type, number: int) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 2))
    made = optimizer([weight], lr=0.1, **({"momentum": 0.9} if number == 1 else {}))
    assert momenta([made], [weight]) == [[]]
    weight.square().sum().backward()
    made.step()
    (found,) = momenta([made], [weight])
    assert [average.shape for average in found] == [weight.shape] * number


@pytest.mark.parametrize("value", [1.0, -0.1, math.nan, "0.5", None, True])
def test_sparsity_outside_its_range_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"expected sparsity in \[0, 1\), got"):
        check_sparsity(value)  # type: ignore[arg-type]


def test_channels_of_any_dimension() -> None:
    weight = torch.arange(24.0).view(2, 3, 2, 2)
    units = Channel(1).units(weight)
    assert units[2].tolist() == [8, 9, 10, 11, 20, 21, 22, 23]
    mask = Channel(1).expand(torch.tensor([True, False, True]), (2, 3, 1, 1))
    assert (weight * mask)[:, 1].abs().sum() == 0
    assert torch.equal((weight * mask)[:, [0, 2]], weight[:, [0, 2]])
    assert Channel().units(torch.arange(3)).tolist() == [[0], [1], [2]]
