"""How weights are cut, against shapes worked by hand, and what N:M and patterns take, against brute force."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.block import Block
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.granularities.pattern import SCP4, Pattern, mined
from lightning_prune.pruning.granularities.vector import Vector

CONV, CONV1D, LINEAR = (8, 4, 3, 3), (8, 4, 5), (8, 12)

CUTS: list[tuple[Granularity, tuple[int, ...], int]] = [
    (Element(), CONV, 288),
    (Element(), LINEAR, 96),
    (Element(), (8,), 8),
    (Vector(), CONV, 96),
    (Vector(), CONV1D, 32),
    (Vector(dim=-2), CONV, 96),
    (Vector(length=2, dim=1), CONV, 144),
    (Vector(length=3), LINEAR, 32),
    (Vector(length=4, dim=0), LINEAR, 24),
    (Kernel(), CONV, 32),
    (Kernel(per_filter=True), CONV1D, 32),
    (Block(4, 2), CONV, 36),
    (Block(2, 3), LINEAR, 16),
    (Channel(), CONV, 8),
    (Channel(dim=1), LINEAR, 12),
    (NM(), CONV, 288),
    (NM(1, 3), LINEAR, 96),
    (Pattern(), CONV, 288),
]


def weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("granularity", "shape", "units"), CUTS)
def test_every_entry_is_in_one_unit_and_masks_remove_units_as_they_are_cut(
    granularity: Granularity, shape: tuple[int, ...], units: int
) -> None:
    tensor = torch.arange(1.0, torch.Size(shape).numel() + 1).view(shape)
    cut = granularity.units(tensor)
    assert len(cut) == units
    assert cut.reshape(-1).sort().values.equal(tensor.reshape(-1))
    keep = torch.rand(units, generator=torch.Generator().manual_seed(0)) < 0.5
    assert granularity.units(tensor * granularity.expand(keep, shape)).equal(cut * keep.unsqueeze(1))


def removed(granularity: Granularity, unit: int, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    keep = torch.arange(len(granularity.units(torch.zeros(shape)))) != unit
    mask = torch.ones(shape) * granularity.expand(keep, shape)
    return [tuple(index) for index in (mask == 0).nonzero().tolist()]


def test_units_are_what_their_names_say() -> None:
    # Unit 100 of (8, 4, 3, 3): entry (2, 3, 0, 1); of its 96 rows, number 31 is (2, 2, 1).
    assert removed(Element(), 100, CONV) == [(2, 3, 0, 1)]
    assert removed(Vector(), 31, CONV) == [(2, 2, 1, column) for column in range(3)]
    assert removed(Vector(dim=-2), 31, CONV) == [(2, 2, row, 1) for row in range(3)]
    assert removed(Vector(length=3), 6, LINEAR) == [(1, column) for column in (6, 7, 8)]
    assert removed(Kernel(), 9, CONV1D) == [(2, 1, position) for position in range(5)]
    # 4 x 2 blocks: 2 x 2 of them at each of 9 positions; number 30 is the lower right one at position (1, 0).
    assert removed(Block(4, 2), 30, CONV) == [(row, column, 1, 0) for row in range(4, 8) for column in (2, 3)]
    assert removed(Channel(dim=1), 5, LINEAR) == [(row, 5) for row in range(8)]


def test_blocks_fill_the_matrix_of_a_convolution_whose_channels_come_last() -> None:
    keep = torch.rand(36, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = Block(4, 2).expand(keep, CONV).permute(0, 2, 3, 1).reshape(8, 36)
    blocks = mask.view(2, 4, 18, 2).sum((1, 3))
    assert blocks.unique().tolist() == [0, 8]


def test_runs_are_the_filters_when_kernels_are_taken_from_each_alike() -> None:
    assert [Kernel(per_filter=flag).runs(CONV) for flag in (False, True)] == [1, 8]
    tensor = torch.arange(8.0).view(8, 1, 1, 1).expand(CONV)
    assert Kernel().units(tensor).view(8, -1).equal(tensor.reshape(8, -1))  # a run is a filter


def test_n_m_worked_by_hand() -> None:
    row = torch.tensor([8.0, 3.0, 2.0, 7.0, 2.0, 6.0, 5.0, 4.0])
    assert row[~NM().removable(row, (1, 8))].tolist() == [8, 7, 6, 5]
    assert (~NM().removable(torch.ones(8), (1, 8))).nonzero().view(-1).tolist() == [0, 1, 4, 5]  # ties keep the first
    assert (~NM(1, 4).removable(torch.tensor([1.0, 2.0, 2.0, 0.0]), (1, 4))).tolist() == [False, True, False, False]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 4)])
@pytest.mark.parametrize("shape", [(6, 16, 3, 3), (6, 16), (6, 8, 5)])
def test_n_m_keeps_the_best_of_all_choices_in_every_group_of_input_channels(
    n: int, m: int, shape: tuple[int, ...]
) -> None:
    scores = weight(*shape).abs()
    mask = NM(n, m).expand(~NM(n, m).removable(scores.view(-1), shape), shape)
    kept, groups = (tensor.movedim(1, -1).reshape(-1, m) for tensor in (mask, scores))
    assert (kept.sum(1) == n).all()
    choices = torch.tensor([[p in choice for p in range(m)] for choice in combinations(range(m), n)])
    best = (groups.unsqueeze(1) * choices).sum(2).amax(1)
    torch.testing.assert_close((groups * kept).sum(1), best)
    assert mask.float().mean() == 1 - NM(n, m).sparsity


@pytest.mark.parametrize(("n", "m", "share"), [(2, 4, 0.745), (4, 8, 0.768), (1, 4, 0.459)])
def test_n_m_keeps_the_published_share_of_gaussian_weights(n: int, m: int, share: float) -> None:
    scores = weight(1000, 800).abs()
    kept = ~NM(n, m).removable(scores.view(-1), (1000, 800))
    assert float(scores.view(-1)[kept].sum() / scores.sum()) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("granularity", [NM(), NM(1, 4), NM(4, 8), Pattern()])
def test_what_went_early_on_a_ramp_stays_removable(granularity: NM | Pattern) -> None:
    shape = (4, 8, 3, 3)
    first = granularity.removable(weight(*shape).abs().view(-1), shape)
    gone = first & (torch.rand(first.shape, generator=torch.Generator().manual_seed(2)) < 0.6)
    later = granularity.removable(weight(*shape, seed=1).abs().view(-1).masked_fill(gone, -torch.inf), shape)
    assert later[gone].all()
    assert later.double().mean() == pytest.approx(granularity.sparsity)
    everything = torch.full((288,), -torch.inf)
    assert granularity.removable(everything, shape).all()


def test_patterns_of_pconv() -> None:
    masks = torch.tensor([[float(p in pattern) for p in range(9)] for pattern in SCP4]).view(4, 3, 3)
    assert masks.sum(0).tolist() == [[0, 3, 0], [3, 4, 3], [0, 3, 0]]
    turns = {tuple(torch.rot90(masks[0], turn).reshape(-1).tolist()) for turn in range(4)}
    assert turns == {tuple(mask.reshape(-1).tolist()) for mask in masks}


def test_pattern_of_a_kernel_worked_by_hand() -> None:
    kernel = torch.tensor([[0.1, -0.9, 0.2], [0.4, 0.05, -0.6], [0.0, 0.3, 1.2]])  # 1.3325, 1.0625, .6125, 1.2625
    scores = kernel.abs().view(-1)
    assert (~Pattern().removable(scores, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [1, 3, 4, 5]
    scores[3] = -torch.inf  # leaves only the last pattern
    assert (~Pattern().removable(scores, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [1, 4, 5, 7]
    scores[4] = -torch.inf  # leaves none: the last has the most left
    assert (~Pattern().removable(scores, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [1, 5, 7]


def test_a_pattern_that_has_lost_an_entry_is_taken_only_if_all_have() -> None:
    scores = torch.tensor([9.0, -torch.inf, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    pattern = Pattern(((0, 1), (2, 3)))
    assert (~pattern.removable(scores, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [2, 3]
    scores[2] = -torch.inf
    assert (~pattern.removable(scores, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [0]


def test_patterns_are_the_nearest_ones() -> None:
    kernels = weight(64, 16, 3, 3)
    pattern = Pattern()
    projected = kernels * pattern.expand(~pattern.removable(kernels.abs().view(-1), kernels.shape), kernels.shape)
    masks = torch.tensor([[float(p in positions) for p in range(9)] for positions in SCP4]).view(4, 1, 1, 3, 3)
    errors = (kernels - kernels * masks).square().sum((3, 4))
    torch.testing.assert_close((kernels - projected).square().sum((2, 3)), errors.amin(0))
    expected = errors.argmin(0).flatten().bincount(minlength=4).tolist()
    assert pattern.histogram([projected]) == (expected, 0, 0)
    assert min(expected) > 0


def test_patterns_see_signs_and_the_smallest_of_scores() -> None:
    scores = torch.tensor([0.0, 1.0, 0.0, -9.0, 1.0, 2.0, 0.0, 1.0, 0.0])  # movement: 3 is what should go
    assert (~Pattern().removable(scores, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [1, 4, 5, 7]
    tiny = 1e-25 * scores.clamp(min=0.1)  # its squares are no float32
    assert (~Pattern().removable(tiny, (1, 1, 3, 3))).nonzero().view(-1).tolist() == [1, 4, 5, 7]
    assert (~Pattern().removable(torch.ones(9), (1, 1, 3, 3))).nonzero().view(-1).tolist() == [1, 3, 4, 5]  # ties


def test_histogram_counts_by_hand() -> None:
    kernels = torch.zeros(5, 1, 3, 3)
    kernels[0, 0, 1, :] = 1  # {3, 4, 5} fits up and down: the first
    kernels[1, 0, :, 1] = kernels[1, 0, 1, 2] = -1  # {1, 4, 5, 7}
    kernels[2, 0, 0, 0] = 1  # a corner
    kernels[3, 0] = 2
    assert Pattern().histogram([kernels, torch.ones(4, 4, 1, 1), kernels[1:2]]) == ([1, 0, 0, 2], 1, 2)


def test_mined_patterns_worked_by_hand() -> None:
    kernel = torch.tensor([[0.1, -0.9, 0.2], [0.4, 0.05, -0.6], [0.0, 0.3, 1.2]])  # natural: (1, 4, 5, 8)
    plus = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])  # of equal ones the first: (1, 3, 4, 5)
    ignored = [torch.zeros(3, 1, 3, 3), torch.ones(9, 9), torch.ones(9, 9, 1, 1)]
    weights = [torch.stack([plus, kernel]).view(2, 1, 3, 3), kernel.view(1, 1, 3, 3), *ignored]
    assert mined(weights).patterns == ((1, 4, 5, 8), (1, 3, 4, 5))
    assert mined(weights, k=1).patterns == ((1, 4, 5, 8),)
    assert mined(weights[:1]).patterns == ((1, 3, 4, 5), (1, 4, 5, 8))  # equally frequent


def test_mined_patterns_are_the_most_frequent() -> None:
    weights = [weight(40, 50, 3, 3), weight(60, 20, 3, 3, seed=1)]
    counts: dict[tuple[int, ...], int] = {}
    for kernel in torch.cat([tensor.view(-1, 9) for tensor in weights]).abs().tolist():
        others = sorted(set(range(9)) - {4}, key=lambda position: -kernel[position])
        natural = tuple(sorted([4, *others[:3]]))
        counts[natural] = counts.get(natural, 0) + 1
    expected = sorted(counts, key=lambda pattern: (-counts[pattern], pattern))
    assert len(expected) == 56
    assert mined(weights, k=56).patterns == tuple(expected)
    assert mined(weights).patterns == tuple(expected[:8])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NM(4, 2), "1 <= n < m, got n=4, m=2"),
        (lambda: NM(4, 4), "1 <= n < m"),
        (lambda: NM(0, 4), "1 <= n < m"),
        (lambda: NM(1.5, 4), "1 <= n < m"),  # type: ignore[arg-type]
        (lambda: NM().tile((8, 3, 3, 3)), r"groups of m=4, got shape \(8, 3, 3, 3\)"),
        (lambda: NM().tile((8,)), "groups of m=4"),
        (lambda: Vector(0), "vector length of at least 1, or null, got 0"),
        (lambda: Vector(5).tile(LINEAR), r"divides dimension -1 of shape \(8, 12\), got 5"),
        (lambda: Vector().tile(LINEAR), "vector length for a weight without kernels"),
        (lambda: Vector(dim=4).tile(CONV), "dimension 4 for vectors"),
        (lambda: Vector(dim=-5).tile(CONV), "dimension -5 for vectors"),
        (lambda: Kernel().tile(LINEAR), r"cut into kernels, got shape \(8, 12\)"),
        (lambda: Block(0, 4), "block rows of at least 1, got 0"),
        (lambda: Block(4, 2.0), "block columns"),  # type: ignore[arg-type]
        (lambda: Block(16, 4).tile(LINEAR), r"16 x 4 blocks of outputs x inputs fill, got shape \(8, 12\)"),
        (lambda: Block(4, 8).tile(LINEAR), "4 x 8 blocks"),
        (lambda: Block().tile((8,)), "4 x 4 blocks"),
        (lambda: Pattern().tile((8, 4, 5, 5)), r"expected 3x3 kernels for patterns, got shape \(8, 4, 5, 5\)"),
        (lambda: Pattern().tile((8, 4, 1, 1)), "3x3 kernels"),
        (lambda: Pattern().tile((8, 4, 3)), "3x3 kernels"),
        (lambda: Pattern().tile((3, 3)), "3x3 kernels"),
        (lambda: Pattern(()), "at least one pattern"),
        (lambda: Pattern(((0, 9),)), "0..8"),
        (lambda: Pattern(((0, 0),)), "different positions"),
        (lambda: Pattern(((0, 1), (0, 1, 2))), "all of one length"),
        (lambda: Pattern((range(9),)), "1 to 8"),
        (lambda: Pattern(((),)), "1 to 8"),
        (lambda: mined([weight(4, 4, 3, 3)], k=57), r"1\.\.56"),
        (lambda: mined([weight(4, 4, 3, 3)], k=0), r"1\.\.56"),
        (lambda: mined([weight(4, 4, 1, 1)]), "3x3 kernels"),
    ],
)
def test_bad_input_is_refused_in_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
