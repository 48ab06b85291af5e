"""What every schedule in conf/ does."""

import pytest
from configured import built, options
from rising import FINALS, check_rises


@pytest.mark.parametrize("name", options("schedule"))
@pytest.mark.parametrize("final", FINALS)
def test_every_schedule_rises_and_ends_at_exactly_the_final_sparsity(name: str, final: float) -> None:
    check_rises(built("schedule", name), final)


@pytest.mark.parametrize("name", options("schedule"))
def test_every_schedule_is_a_value(name: str) -> None:
    one, other = built("schedule", name), built("schedule", name)
    assert one == other
    assert hash(one) == hash(other)
