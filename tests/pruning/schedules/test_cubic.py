"""The ramp against the published values."""

import math
from collections.abc import Callable

import pytest
from rising import FINALS, check_rises

from lightning_prune.errors import InputError
from lightning_prune.pruning.schedules.cubic import Cubic


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


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cubic(initial=1.0), r"initial in \[0, 1\), got 1.0"),
        (lambda: Cubic(initial=math.nan), "initial in"),
        (lambda: Cubic(exponent=0), r"exponent in \(0, inf\), got 0"),
    ],
)
def test_what_is_no_ramp_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=f"expected .*{message}"):
        build()


def test_a_ramp_of_any_power_rises_to_the_end() -> None:
    for final in FINALS:
        check_rises(Cubic(initial=0.3, exponent=1.7), final)
