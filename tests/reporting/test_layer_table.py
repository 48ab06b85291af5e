"""The table of layers."""

import math

import pytest
from report_examples import printed, squeezed

from lightning_prune.reporting.layer_counts import LayerCount
from lightning_prune.reporting.layer_table import LayerTable


def layer(name: str, nonzeros: int = 300, left: int = 8, macs: float = 100.0) -> LayerCount:
    return LayerCount(name, (10, 4, 3, 3), nonzeros, 10, left, macs)


def test_layers_stand_below_each_other_and_their_sum_at_the_end():
    lines = printed(LayerTable([layer("network.conv1", 360, 10, 300.0), layer("network.conv2", 90, 5)]), 80)

    assert [squeezed(line) for line in (lines[0], lines[2], lines[3], lines[5])] == [
        "Layer Shape Weights Sparsity Channels MACs",
        "conv1 10x4x3x3 360 0.0 % 10 of 10 75.0 %",
        "conv2 10x4x3x3 360 75.0 % 5 of 10 25.0 %",
        "all 720 37.5 % 15 of 20 100.0 %",
    ]


def test_unknown_macs_are_dashes():
    lines = printed(LayerTable([layer("conv1", macs=math.nan)]), 80)

    assert squeezed(lines[2]) == "conv1 10x4x3x3 360 16.7 % 8 of 10 -"


def test_neighbours_of_many_layers_share_a_line_if_they_are_alike():
    layers = [layer(f"stage.{number}", 300 if number < 30 else 100) for number in range(40)]

    lines = printed(LayerTable(layers), 80)

    assert [squeezed(line) for line in lines[2:4]] == [
        "0 to 29 (30) 10x4x3x3 10.80 K 16.7 % 240 of 300 75.0 %",
        "30 to 39 (10) 10x4x3x3 3.60 K 72.2 % 80 of 100 25.0 %",
    ]


def test_too_many_layers_for_a_screen_are_one_line():
    layers = [layer(f"net.{number}", nonzeros=360 - 10 * number) for number in range(30)]

    assert printed(LayerTable(layers), 80) == ["30 layers with 0.0 % (0) to 80.6 % (29) of zeros"]


@pytest.mark.parametrize("width", [80, 100])
def test_long_names_take_two_lines_and_no_number_is_cut(width):
    lines = printed(LayerTable([layer("block" * 20)]), width)

    assert max(map(len, lines)) <= width
    assert "10x4x3x3      360    16.7 %   8 of 10  100.0 %" in lines[2]


def test_a_network_without_layers_has_no_table():
    assert printed(LayerTable([]), 80) == []
