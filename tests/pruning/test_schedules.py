"""Schedules against the published curve and the equations that define it."""

import itertools
import math
from collections.abc import Callable

import pytest
from configured import content, options
from hydra.utils import instantiate

from lightning_prune.errors import InputError
from lightning_prune.pruning.schedules.asymptotic import Asymptotic
from lightning_prune.pruning.schedules.constant import Constant
from lightning_prune.pruning.schedules.cubic import Cubic
from lightning_prune.pruning.schedules.exponential import Exponential
from lightning_prune.pruning.schedules.iterative import Iterative
from lightning_prune.pruning.schedules.one_shot import OneShot

SCHEDULES = [instantiate(content("schedule", name)) for name in options("schedule")]
VARIANTS = [Cubic(initial=0.3, exponent=1.7), Iterative(rounds=1), OneShot(at=1.0)]


@pytest.mark.parametrize("schedule", [*SCHEDULES, *VARIANTS], ids=str)
@pytest.mark.parametrize("final", [0.0, 0.1, 0.3, 0.4, 5 / 9, 0.9, 0.99])
def test_every_schedule_rises_and_ends_at_exactly_the_final_sparsity(
    schedule: Callable[..., float], final: float
) -> None:
    values = [schedule(step / 100, final) for step in range(101)]
    assert values[-1] == final
    assert all(0 <= before <= after + 1e-12 for before, after in itertools.pairwise(values))


def test_constant() -> None:
    assert [Constant()(progress, 0.3) for progress in (0.0, 0.5, 1.0)] == [0.3] * 3


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


def test_cubic_takes_the_published_values() -> None:
    values = [0.0, 0.2439, 0.4392, 0.5913, 0.7056, 0.7875, 0.8424, 0.8757, 0.8928, 0.8991, 0.9]
    assert [Cubic()(tenths / 10, final=0.9) for tenths in range(11)] == pytest.approx(values, abs=1e-9)
    points = {0.0: 0.05, 0.1: 0.25325, 0.25: 0.483594, 0.5: 0.70625, 0.75: 0.788281, 1.0: 0.8}
    for progress, sparsity in points.items():
        assert Cubic(initial=0.05)(progress, final=0.8) == pytest.approx(sparsity, abs=5e-7)
    shares = [Cubic()(progress, final=0.6) / 0.6 for progress in (0.1, 0.2, 0.25, 0.5)]
    assert shares == pytest.approx([0.271, 0.488, 0.578125, 0.875])


def test_cubic_with_another_exponent_and_with_nothing_to_do() -> None:
    assert Cubic(initial=0.2, exponent=1)(0.25, final=0.6) == pytest.approx(0.3)
    assert Cubic(exponent=2)(0.5, final=0.8) == pytest.approx(0.6)
    assert Cubic(initial=0.5)(0.1, final=0.4) == 0.4


def test_one_shot_is_a_step() -> None:
    assert [OneShot()(progress, 0.4) for progress in (0.0, 0.5, 1.0)] == [0.4] * 3
    assert [OneShot(at=0.25)(progress, 0.4) for progress in (0.0, 0.2499, 0.25, 1.0)] == [0, 0, 0.4, 0.4]


def test_iterative_leaves_the_same_share_in_each_round() -> None:
    densities = {3: 0.512, 10: 0.1074, 15: 0.0352}  # rounds of 20 %
    for rounds, density in densities.items():
        schedule, final = Iterative(rounds), 1 - 0.8**rounds
        assert 1 - schedule(1.0, final) == pytest.approx(density, abs=5e-5)
        values = [schedule((step + 0.5) / rounds, final) for step in range(rounds)]
        assert values == pytest.approx([1 - 0.8 ** (step + 1) for step in range(rounds)])


def test_iterative_rounds_start_on_time() -> None:
    values = [Iterative(rounds=100)(step / 100, final=0.9) for step in range(100)]
    assert len(set(values)) == 100  # 29 / 100 * 100 is below 29 in floats
    assert [round(Iterative(2)(progress, final=0.75), 6) for progress in (0.0, 0.499, 0.5, 1.0)] == [
        0.5,
        0.5,
        0.75,
        0.75,
    ]


def test_exponential_halves_the_density_in_equal_times() -> None:
    values = [Exponential()(thirds / 3, final=0.875) for thirds in range(4)]
    assert values == pytest.approx([0, 0.5, 0.75, 0.875])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Asymptotic(knee=0.0), "knee"),
        (lambda: Asymptotic(knee=0.8), "knee"),
        (lambda: Asymptotic(knee=math.nan), "knee"),
        (lambda: Asymptotic(initial=1.0), "initial sparsity"),
        (lambda: Asymptotic(initial=-0.1), "initial sparsity"),
        (lambda: Cubic(initial=1.0), r"initial sparsity in \[0, 1\), got 1.0"),
        (lambda: Cubic(initial=math.nan), "initial sparsity"),
        (lambda: Cubic(exponent=0), "exponent greater than 0, got 0"),
        (lambda: OneShot(at=1.1), r"at in \[0, 1\], got 1.1"),
        (lambda: Iterative(rounds=0), "rounds of at least 1, got 0"),
        (lambda: Iterative(rounds=2.5), "rounds of at least 1"),  # type: ignore[arg-type]
    ],
)
def test_bad_values_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"expected .*{message}"):
        build()
