"""Rounds that start on time."""

from typing import Any

import pytest
from rising import FINALS, check_rises

from lightning_prune.errors import InputError
from lightning_prune.pruning.schedules.iterative import Iterative


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


def test_one_round_rises_to_the_end() -> None:
    for final in FINALS:
        check_rises(Iterative(rounds=1), final)


@pytest.mark.parametrize("rounds", [0, 2.5])
def test_what_is_no_number_of_rounds_is_refused(rounds: Any) -> None:
    with pytest.raises(InputError, match=f"expected rounds to be a whole number of at least 1, got {rounds}"):
        Iterative(rounds=rounds)
