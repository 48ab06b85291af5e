"""A step."""

import pytest
from rising import FINALS, check_rises

from lightning_prune.errors import InputError
from lightning_prune.pruning.schedules.one_shot import OneShot


def test_one_shot_is_a_step() -> None:
    assert [OneShot()(progress, 0.4) for progress in (0.0, 0.5, 1.0)] == [0.4] * 3
    assert [OneShot(at=0.25)(progress, 0.4) for progress in (0.0, 0.2499, 0.25, 1.0)] == [0, 0, 0.4, 0.4]


def test_a_late_shot_rises_to_the_end() -> None:
    for final in FINALS:
        check_rises(OneShot(at=1.0), final)


def test_a_moment_outside_the_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected .*at in \[0, 1\], got 1.1"):
        OneShot(at=1.1)
