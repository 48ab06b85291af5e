"""What patterns take, against brute force and by hand."""

from collections.abc import Callable

import pytest
import torch
from cutting import CONV, check_cut, check_refused, weight

from lightning_prune.pruning.granularities.pattern import SCP4, Pattern, mined


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


@pytest.mark.parametrize(("granularity", "shape", "units"), [(Pattern(), CONV, 288)])
def test_pattern_cuts_into_so_many_units(granularity: Pattern, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


@pytest.mark.parametrize(
    ("build", "message"),
    [
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
def test_what_are_no_patterns_is_refused_in_one_line(build: Callable[[], object], message: str) -> None:
    check_refused(build, message)
