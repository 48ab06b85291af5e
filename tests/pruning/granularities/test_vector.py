"""Vectors along one dimension."""

from collections.abc import Callable

import pytest
from cutting import CONV, CONV1D, LINEAR, check_cut, check_refused, removed

from lightning_prune.pruning.granularities.vector import Vector


@pytest.mark.parametrize(
    ("granularity", "shape", "units"),
    [
        (Vector(), CONV, 96),
        (Vector(), CONV1D, 32),
        (Vector(dim=-2), CONV, 96),
        (Vector(length=2, dim=1), CONV, 144),
        (Vector(length=3), LINEAR, 32),
        (Vector(length=4, dim=0), LINEAR, 24),
    ],
)
def test_vector_cuts_into_so_many_units(granularity: Vector, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


def test_a_vector_is_what_its_name_says() -> None:
    # Of the 96 rows of (8, 4, 3, 3), number 31 is (2, 2, 1).
    assert removed(Vector(), 31, CONV) == [(2, 2, 1, column) for column in range(3)]
    assert removed(Vector(dim=-2), 31, CONV) == [(2, 2, row, 1) for row in range(3)]
    assert removed(Vector(length=3), 6, LINEAR) == [(1, column) for column in (6, 7, 8)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Vector(0), "length to be a whole number of at least 1, got 0"),
        (lambda: Vector(5).tile(LINEAR), r"divides dimension -1 of shape \(8, 12\), got 5"),
        (lambda: Vector().tile(LINEAR), "vector length for a weight without kernels"),
        (lambda: Vector(dim=4).tile(CONV), "dimension 4 for vectors"),
        (lambda: Vector(dim=-5).tile(CONV), "dimension -5 for vectors"),
    ],
)
def test_what_are_no_vectors_is_refused_in_one_line(build: Callable[[], object], message: str) -> None:
    check_refused(build, message)
