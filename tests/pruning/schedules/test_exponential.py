"""A density that halves."""

import pytest

from lightning_prune.pruning.schedules.exponential import Exponential


def test_exponential_halves_the_density_in_equal_times() -> None:
    values = [Exponential()(thirds / 3, final=0.875) for thirds in range(4)]
    assert values == pytest.approx([0, 0.5, 0.75, 0.875])
