"""Wilson's interval against published numbers and against its definition."""

import math

import numpy as np
import pytest

from lightning_prune.reporting.intervals import wilson_interval


@pytest.mark.parametrize(
    ("right", "examples", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_that_newcombe_prints(right, examples, low, high):
    """Table I of his paper of 1998, method 3."""
    assert wilson_interval(right / examples, examples) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("examples", [1, 7, 360, 10000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.993, 1.0])
def test_the_ends_are_the_shares_from_which_the_sample_lies_just_so_far(share, examples):
    ends = wilson_interval(share, examples)

    assert 0 <= ends[0] <= share <= ends[1] <= 1
    for end in ends:
        if end not in (0.0, 1.0):
            deviations = (share - end) / np.sqrt(end * (1 - end) / examples)
            # Of a normal distribution 2.5 % lie beyond each.
            assert math.erfc(abs(deviations) / math.sqrt(2)) == pytest.approx(0.05, abs=1e-9)
