"""How many units go, by hand."""

import pytest
import torch
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.graph import LayerPatterns
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.prunable_weight import PrunableWeight
from lightning_prune.pruning.quota import Quota

TEN = PrunableWeight("layer.weight", torch.Size([2, 5]), Element())
ANY = LayerPatterns(nn.Module())


def test_each_stage_is_rounded_on_its_own_and_all_are_counted() -> None:
    assert Quota(0.3).numbers(TEN, 0.3) == [3]
    assert Quota(0.3).numbers(TEN, 0.3, [0.25, 0.75]) == [1, 3]  # 0.75 and 2.25
    assert Quota(0.3, rounding="floor").numbers(TEN, 0.3, [0.25, 0.75]) == [0, 2]
    assert Quota(0.99).numbers(TEN, 0.99) == [9]


def test_numbers_are_those_of_a_run_and_end_in_a_width() -> None:
    kernels = PrunableWeight("layer.weight", torch.Size([4, 8, 3, 3]), Kernel(per_filter=True))
    assert Quota(0.4).numbers(kernels, 0.4) == [3]
    channels = PrunableWeight("layer.weight", torch.Size([20, 3]), Channel(round_to=8))
    assert [Quota(s).numbers(channels, s, [0.5, 0.5]) for s in (0.1, 0.3, 0.9)] == [[0, 0], [3, 4], [9, 12]]


def test_shares_are_those_of_the_patterns() -> None:
    other = PrunableWeight("head.weight", torch.Size([2, 5]), Element())
    assert Quota(0.3).shares([TEN, other], ANY) == [0.3, 0.3]
    assert Quota({"head": 0.7}).shares([TEN, other], ANY) == [0.0, 0.7]
    assert Quota(0.3, "erdos_renyi_kernel").shares([TEN, other], ANY) == pytest.approx([0.3, 0.3])
    with pytest.raises(InputError, match="expected scope='layer' or 'global' for channels"):
        Quota(0.5, "erdos_renyi_kernel").shares([PrunableWeight("w", torch.Size([2, 4]), NM())], ANY)


def test_one_fraction_is_asked_for_where_everything_competes() -> None:
    assert Quota(0.3, "global").number(10) == 3
    with pytest.raises(InputError, match=r"expected one sparsity for units that all compete, got \{'a': 0.3\}"):
        assert Quota({"a": 0.3}).fraction


@pytest.mark.parametrize(("sparsity", "floor"), [(1.0, 0.0), (-0.1, 0.0), ({}, 0.0), ({"a": 2}, 0.0), (0.5, 1.0)])
def test_what_is_no_fraction_is_refused(sparsity: float, floor: float) -> None:
    with pytest.raises(InputError, match="expected"):
        Quota(sparsity, floor=floor)
