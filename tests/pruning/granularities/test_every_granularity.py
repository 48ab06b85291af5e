"""What every granularity in conf/ does."""

from functools import partial

import pytest
from configured import built, options
from cutting import CONV, CONV1D, LINEAR, check_cut, check_ramp, check_refused

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.granularity import Granularity

SHAPES = [CONV, CONV1D, LINEAR, (16, 8, 3, 3), (16, 8, 1, 1), (12, 32)]


def fits(granularity: Granularity, shape: tuple[int, ...]) -> bool:
    try:
        granularity.tile(shape)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("name", options("granularity"))
def test_every_granularity_cuts_each_weight_into_equal_units_or_says_why_not(name: str) -> None:
    granularity = built("granularity", name)
    assert isinstance(granularity, Granularity)
    fitting = [shape for shape in SHAPES if fits(granularity, shape)]
    assert fitting
    for shape in fitting:
        assert check_cut(granularity, shape) % granularity.runs(shape) == 0
    for shape in set(SHAPES) - set(fitting):
        check_refused(partial(granularity.tile, shape), "got ")


@pytest.mark.parametrize("name", options("granularity"))
def test_a_granularity_that_fixes_its_sparsity_says_what_may_go(name: str) -> None:
    granularity = built("granularity", name)
    if granularity.sparsity is not None:
        check_ramp(granularity, (4, 8, 3, 3))


@pytest.mark.parametrize("name", options("granularity"))
def test_every_granularity_is_a_value(name: str) -> None:
    assert built("granularity", name) == built("granularity", name)
