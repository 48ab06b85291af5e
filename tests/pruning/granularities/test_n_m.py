"""What N:M takes, against brute force and published shares."""

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from cutting import CONV, LINEAR, check_cut, check_ramp, check_refused, weight

from lightning_prune.pruning.granularities.n_m import NM


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


@pytest.mark.parametrize("granularity", [NM(1, 4), NM(4, 8)])
def test_what_went_early_on_a_ramp_of_any_n_m_stays_removable(granularity: NM) -> None:
    check_ramp(granularity, (4, 8, 3, 3))


@pytest.mark.parametrize(("granularity", "shape", "units"), [(NM(), CONV, 288), (NM(1, 3), LINEAR, 96)])
def test_n_m_cuts_into_so_many_units(granularity: NM, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NM(4, 2), "1 <= n < m, got n=4, m=2"),
        (lambda: NM(4, 4), "1 <= n < m"),
        (lambda: NM(0, 4), "n to be a whole number of at least 1, got 0"),
        (lambda: NM(1.5, 4), "n to be a whole number of at least 1, got 1.5"),  # type: ignore[arg-type]
        (lambda: NM().tile((8, 3, 3, 3)), r"groups of m=4, got shape \(8, 3, 3, 3\)"),
        (lambda: NM().tile((8,)), "groups of m=4"),
    ],
)
def test_what_are_no_groups_is_refused_in_one_line(build: Callable[[], object], message: str) -> None:
    check_refused(build, message)
