"""Exact counts."""

import math

import pytest

from lightning_prune.errors import InputError
from lightning_prune.pruning.counts import check_sparsity, count


def test_counts_are_exact_where_floats_are_not() -> None:
    cases = [(10, 0.1), (16, 0.3), (20, 0.2), (32, 0.3), (64, 0.4)]
    assert [int(n * (1 - (1 - s))) for n, s in cases] == [0, 4, 3, 9, 25]  # the trap in the authors' code
    assert [count(n, s, "floor") for n, s in cases] == [1, 4, 4, 9, 25]
    assert [count(n, s, "round") for n, s in cases] == [1, 5, 4, 10, 26]


def test_a_layer_is_never_emptied() -> None:
    assert [count(n, 0.99) for n in (1, 2, 3)] == [0, 1, 2]


@pytest.mark.parametrize("value", [1.0, -0.1, math.nan, "0.5", None, True])
def test_sparsity_outside_its_range_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"expected sparsity in \[0, 1\), got"):
        check_sparsity(value)  # type: ignore[arg-type]
