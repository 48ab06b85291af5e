"""What every schedule does."""

import itertools
from collections.abc import Callable

FINALS = (0.0, 0.1, 0.3, 0.4, 5 / 9, 0.9, 0.99)


def check_rises(schedule: Callable[[float, float], float], final: float) -> None:
    """Assert that a schedule never falls, stays in [0, 1], and ends at exactly the final sparsity."""
    values = [schedule(step / 100, final) for step in range(101)]
    assert values[-1] == final
    assert all(0 <= before <= after + 1e-12 for before, after in itertools.pairwise(values))
