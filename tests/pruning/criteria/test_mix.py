"""One criterion after the other, each for its share."""

import math

import pytest
import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.counts import count
from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.criteria.random import Random
from lightning_prune.pruning.criteria.taylor import Taylor
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.prunable_weight import PrunableWeight
from lightning_prune.pruning.quota import Quota


def kept(
    weight: Tensor,
    mix: Mix,
    sparsity: float,
    gone: Tensor | None = None,
    granularity: Granularity | None = None,
    quota: Quota | None = None,
) -> Tensor:
    cut = Channel() if granularity is None else granularity
    quota = Quota(sparsity, rounding="floor") if quota is None else quota
    competition = Competition([PrunableWeight("w", weight.shape, cut)], [sparsity], quota)
    return competition.choose(mix, {"w": weight}, None if gone is None else {"w": ~gone[:, None]})["w"]


@pytest.mark.parametrize(("channels", "expected"), [(16, 5), (32, 12), (64, 25)])
def test_mix_rounds_both_counts_on_their_own(channels: int, expected: int) -> None:
    units = torch.randn(channels, 27, generator=torch.Generator().manual_seed(channels))
    assert int((~kept(units, Mix(share=0.25), 0.4)).sum()) == expected


def test_mix_measures_distances_among_the_survivors_only() -> None:
    # By norm goes 0; among 1, 3, 6, 20 the sums are 26, 22, 22, 50: 3 goes first. With 0 they would be 27, 25, 28, 70.
    units = torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]])
    assert kept(units, Mix(share=0.5), 0.4)[:, 0].tolist() == [False, True, False, True, True]
    assert Mix(share=0.4)(units).tolist() == [0, 1, 3, 2, 4]  # then by distances among 3, 6 and 20


def one_after_the_other(units: Tensor, mix: Mix, sparsity: float, gone: Tensor) -> list[int]:
    """What goes, by sorting twice."""
    first, second = (count(len(units), share * sparsity, "floor") for share in (mix.share, 1 - mix.share))
    order = sorted(range(len(units)), key=lambda i: -math.inf if gone[i] else float(mix.first(units)[i]))
    rest = sorted(order[first:])
    scores: list[float] = mix.then(units[rest]).tolist()
    late = sorted(range(len(rest)), key=lambda i: -math.inf if gone[rest[i]] else scores[i])[:second]
    return sorted({*order[:first], *(rest[i] for i in late), *gone.nonzero().flatten().tolist()})


@pytest.mark.parametrize("seed", range(30))
def test_mix_is_two_sorts_one_after_the_other_whatever_is_gone_already(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    units = torch.randint(-2, 3, (30, 4), generator=generator).float()  # with ties
    sparsity, share = (float(x) for x in 0.05 + 0.9 * torch.rand(2, generator=generator))
    gone = torch.rand(30, generator=generator) < sparsity * float(torch.rand(1, generator=generator))
    for first, then in ((Random(seed), GeometricMedian()), (Mix().first, Random(seed))):
        mix = Mix(first, then, share)
        found = (~kept(units, mix, sparsity, gone)[:, 0]).nonzero().flatten().tolist()
        assert found == one_after_the_other(units, mix, sparsity, gone)


def test_mix_keeps_to_what_a_granularity_lets_go() -> None:
    weight = torch.randn(6, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    pairs = kept(weight, Mix(), 0.5, granularity=NM(2, 4)).reshape(6, 4, 4, 9)
    assert (pairs.sum(2) == 2).all()
    alike = kept(weight, Mix(), 0.5, granularity=Kernel(per_filter=True))
    assert (alike[:, :, 0, 0].sum(1) == 8).all()


def test_mix_is_a_criterion_of_weights_with_two_stages() -> None:
    mix = Mix(share=0.25)
    assert isinstance(mix, Criterion)
    assert (mix.needs, mix.reads) == (Criterion.needs, Criterion.reads)
    assert mix.stages == ((mix.first, 0.25), (mix.then, 0.75))
    assert Random().stages == ((Random(), 1.0),)


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_of_all_or_nothing_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"expected share in \(0, 1\), got"):
        Mix(share=share)


@pytest.mark.parametrize("criterion", [Taylor(), BatchNormScale()])
def test_only_criteria_of_weights_are_mixed(criterion: Criterion) -> None:
    with pytest.raises(InputError, match="expected criteria of the weights to mix, got"):
        Mix(then=criterion)
