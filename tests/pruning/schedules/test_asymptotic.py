"""The curve of ASFP against the paper's values and equations."""

import itertools
import math
from collections.abc import Callable

import pytest

from lightning_prune.errors import InputError
from lightning_prune.pruning.schedules.asymptotic import Asymptotic


def test_asymptotic_takes_the_values_of_the_paper() -> None:
    curve = {0: 0.0, 1: 0.0216, 5: 0.0969, 10: 0.1703, 25: 0.3, 50: 0.3750, 100: 0.3984, 200: 0.4}
    for epoch, sparsity in curve.items():
        assert Asymptotic()(epoch / 200, final=0.4) == pytest.approx(sparsity, abs=5e-5)


@pytest.mark.parametrize(("initial", "knee", "final"), [(0.0, 0.125, 0.7), (0.1, 0.125, 0.4), (0.2, 0.4, 0.9)])
def test_asymptotic_is_an_exponential_through_its_three_points(initial: float, knee: float, final: float) -> None:
    schedule = Asymptotic(initial, knee)
    assert schedule(0.0, final) == pytest.approx(initial)
    assert schedule(knee, final) == pytest.approx(0.75 * final)
    assert schedule(1.0, final) == pytest.approx(final)
    values = [schedule(step / 10, final) for step in range(11)]
    rises = [after - before for before, after in itertools.pairwise(values)]
    ratios = [after / before for before, after in itertools.pairwise(rises)]
    assert ratios == pytest.approx([ratios[0]] * 9)  # equal steps shrink the rise by one factor: a * exp(-k t) + b
    assert 0 < ratios[0] < 1


def test_start_above_the_knee_asks_for_the_end() -> None:
    assert Asymptotic(initial=0.35)(0.1, final=0.4) == 0.4


def test_knee_too_late_for_an_asymptote_is_a_line() -> None:
    assert Asymptotic(initial=0.29, knee=0.7)(0.5, final=0.4) == pytest.approx(0.345, abs=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Asymptotic(knee=0.0), "knee"),
        (lambda: Asymptotic(knee=0.8), "knee"),
        (lambda: Asymptotic(knee=math.nan), "knee"),
        (lambda: Asymptotic(initial=1.0), r"initial in \[0, 1\)"),
        (lambda: Asymptotic(initial=-0.1), r"initial in \[0, 1\)"),
    ],
)
def test_what_is_no_asymptote_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"expected .*{message}"):
        build()
