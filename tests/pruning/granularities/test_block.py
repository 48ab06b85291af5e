"""Blocks of outputs and inputs."""

from collections.abc import Callable

import pytest
import torch
from cutting import CONV, LINEAR, check_cut, check_refused, removed

from lightning_prune.pruning.granularities.block import Block


def test_blocks_fill_the_matrix_of_a_convolution_whose_channels_come_last() -> None:
    keep = torch.rand(36, generator=torch.Generator().manual_seed(0)) < 0.5
    mask = Block(4, 2).expand(keep, CONV).permute(0, 2, 3, 1).reshape(8, 36)
    blocks = mask.view(2, 4, 18, 2).sum((1, 3))
    assert blocks.unique().tolist() == [0, 8]


@pytest.mark.parametrize(("granularity", "shape", "units"), [(Block(4, 2), CONV, 36), (Block(2, 3), LINEAR, 16)])
def test_block_cuts_into_so_many_units(granularity: Block, shape: tuple[int, ...], units: int) -> None:
    assert check_cut(granularity, shape) == units


def test_a_block_is_what_its_name_says() -> None:
    # 4 x 2 blocks: 2 x 2 of them at each of 9 positions; number 30 is the lower right one at position (1, 0).
    assert removed(Block(4, 2), 30, CONV) == [(row, column, 1, 0) for row in range(4, 8) for column in (2, 3)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Block(0, 4), "rows to be a whole number of at least 1, got 0"),
        (lambda: Block(4, 2.0), "columns to be a whole number"),  # type: ignore[arg-type]
        (lambda: Block(16, 4).tile(LINEAR), r"16 x 4 blocks of outputs x inputs fill, got shape \(8, 12\)"),
        (lambda: Block(4, 8).tile(LINEAR), "4 x 8 blocks"),
        (lambda: Block().tile((8,)), "4 x 4 blocks"),
    ],
)
def test_what_are_no_blocks_is_refused_in_one_line(build: Callable[[], object], message: str) -> None:
    check_refused(build, message)
