"""Single entries."""

import pytest
from cutting import CONV, LINEAR, check_cut, removed

from lightning_prune.pruning.granularities.element import Element


@pytest.mark.parametrize(
    ("granularity", "shape", "units"), [(Element(), CONV, 288), (Element(), LINEAR, 96), (Element(), (8,), 8)]
)
def test_element_cuts_into_so_many_units(granularity: Element, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


def test_an_element_is_what_its_name_says() -> None:
    # Unit 100 of (8, 4, 3, 3) is entry (2, 3, 0, 1).
    assert removed(Element(), 100, CONV) == [(2, 3, 0, 1)]
