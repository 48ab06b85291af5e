"""Kernels, from every filter alike or not."""

from collections.abc import Callable

import pytest
import torch
from cutting import CONV, CONV1D, LINEAR, check_cut, check_refused, removed

from lightning_prune.pruning.granularities.kernel import Kernel


def test_runs_are_the_filters_when_kernels_are_taken_from_each_alike() -> None:
    assert [Kernel(per_filter=flag).runs(CONV) for flag in (False, True)] == [1, 8]
    tensor = torch.arange(8.0).view(8, 1, 1, 1).expand(CONV)
    assert Kernel().units(tensor).view(8, -1).equal(tensor.reshape(8, -1))  # a run is a filter


@pytest.mark.parametrize(
    ("granularity", "shape", "units"), [(Kernel(), CONV, 32), (Kernel(per_filter=True), CONV1D, 32)]
)
def test_kernel_cuts_into_so_many_units(granularity: Kernel, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


def test_a_kernel_is_what_its_name_says() -> None:
    assert removed(Kernel(), 9, CONV1D) == [(2, 1, position) for position in range(5)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Kernel().tile(LINEAR), r"cut into kernels, got shape \(8, 12\)"),
    ],
)
def test_what_are_no_kernels_is_refused_in_one_line(build: Callable[[], object], message: str) -> None:
    check_refused(build, message)
