"""The picture of prunable groups: what stands where, and that it opens."""

import math
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from lightning_prune import prunable_groups
from lightning_prune.errors import InputError
from lightning_prune.models.densenet import DenseLayer
from lightning_prune.models.resnet import resnet20
from lightning_prune.reporting.group_plot import draw_groups
from lightning_prune.slimming.prunable_groups import PrunableGroups

READS, WRITES, OWNED, STAYS = (0, 158, 115), (0, 114, 178), (230, 159, 0), (154, 154, 154)
IMAGES = torch.zeros(2, 3, 32, 32)


class Heads(nn.Module):
    """Attention of 3 heads of 4 channels, whose projections are plain layers."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 12) for _ in range(3))
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved, and with what options."""
    saved: list[tuple[Figure, dict[str, object]]] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: saved.append((figure, options)))
    return saved


def drawn(groups: PrunableGroups, figures) -> Figure:
    draw_groups(groups, "groups.png")
    return figures[-1][0]


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def texts(figure: Figure) -> dict[tuple[int, int], str]:
    """What is written into cells, by row and column."""
    return {
        (round(y), math.floor(x)): text.get_text() for text in figure.axes[0].texts for x, y in [text.get_position()]
    }


def cells(figure: Figure) -> dict[tuple[int, int], list[tuple[int, ...]]]:
    """The colours of cells from left to right, by row and column."""
    found: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for patch in figure.axes[0].patches:
        color = tuple(round(255 * part) for part in patch.get_facecolor()[:3])
        if color in (READS, WRITES, OWNED, STAYS):
            place = (round(patch.get_y() + patch.get_height() / 2), math.floor(patch.get_x()))
            found.setdefault(place, []).append(color)
    return found


def test_a_chain_is_drawn_as_it_is(figures):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, bias=False), nn.Conv2d(6, 2, 3)
    )

    figure = drawn(prunable_groups(model, IMAGES), figures)

    assert names(figure) == ["0, 1", "3", "4"]
    assert cells(figure) == {
        (0, 0): [WRITES, OWNED],
        (1, 0): [READS],
        (1, 1): [WRITES],
        (2, 1): [READS],
        (2, 2): [STAYS],
    }
    written = texts(figure)
    assert {place: text for place, text in written.items() if text} == {
        (0, 0): "0: 8",
        (1, 1): "1: 6",
        (2, 2): "2",
        (2, 3): "are outputs of the model",
    }


def test_resnet_takes_as_many_columns_as_groups_that_overlap(figures):
    groups = prunable_groups(resnet20(), IMAGES)

    figure = drawn(groups, figures)

    # 19 convolutions, each with its batch norm, and the linear layer.
    assert len(names(figure)) == 20
    assert names(figure)[:2] == ["conv1, bn1", "layer1.0.conv1, bn1"]
    # Zero-padded shortcuts: the channels of each stage go on beside those of the next, and one column has the rest.
    found, written = cells(figure), texts(figure)
    assert {column for _, column in found} == {0, 1, 2, 3, 4}
    heads = {text for text in written.values() if ": " in text}
    assert heads == {f"{number}: {group.size}" for number, group in enumerate(groups)}
    assert [found[row, 0] for row in (0, 1, 2)] == [[WRITES, OWNED], [READS], [WRITES, OWNED]]
    # The last stage has 64 channels, of which the first stage writes 16 and the second as many more.
    assert [written[18, column] for column in (0, 2, 3)] == ["16 of 64", "16 of 64", "32 of 64"]


def test_every_member_of_every_group_is_there(figures):
    layers = [DenseLayer(width, 4) for width in (6, 10, 14)]
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), *layers, nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 2, 1))
    groups = prunable_groups(model, IMAGES)

    figure = drawn(groups, figures)

    parts = {
        (number, member.layer, "owned" if member.role in ("scale", "shift", "bias") else member.role)
        for number, group in enumerate(groups)
        for member in group.members
        if member.role != "other"
    }
    colors = [color for found in cells(figure).values() for color in found]
    assert colors.count(READS) == sum(role == "reader" for *_, role in parts)
    assert colors.count(WRITES) == sum(role == "filter" for *_, role in parts) == 4
    assert colors.count(OWNED) == sum(role == "owned" for *_, role in parts)
    # A batch norm stands with the convolution that writes its channels, or with the one that reads just them.
    assert names(figure) == ["0, 1.bn", "1.conv", "2.bn, conv", "3.bn, conv", "4, 6"]


def test_heads_are_units_of_several_channels(figures):
    groups = prunable_groups(Heads(), torch.zeros(2, 7, 8))

    figure = drawn(groups, figures)

    assert "0: 3 x 4" in texts(figure).values()


def test_a_network_without_groups_shows_what_stays(figures):
    figure = drawn(prunable_groups(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4)), figures)

    assert cells(figure) == {(0, 0): [STAYS]}
    assert texts(figure)[0, 0] == "3"


def test_all_reasons_of_a_layer_are_given_and_long_ones_cut(figures):
    groups = prunable_groups(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4))
    fixed = {"are one thing": [("0", 1)], "are another": [("0", 2)], "are" + " very" * 30 + " long": [("0", 4)]}

    figure = drawn(PrunableGroups((), fixed, groups.coupling), figures)

    assert texts(figure)[0, 0] == "7"
    reason = texts(figure)[0, 1]
    assert reason.startswith("1 are one thing; 2 are another; 4 are very")
    assert reason.endswith("...")


@pytest.mark.parametrize(("depth", "name"), [(150, "block"), (400, "block" * 80)])
def test_deep_networks_stay_within_a_size_that_opens(figures, depth, name):
    # Made by hand: to trace a network of this depth would take longer than the test should.
    layers = [f"{name}{number}" for number in range(depth)]
    shapes = {f"{layer}.weight": torch.Size((4, 4)) for layer in layers}
    coupling = replace(prunable_groups(nn.Linear(4, 3), torch.zeros(2, 4)).coupling, shapes=shapes)

    figure = drawn(PrunableGroups((), {"are fixed": [(layer, 4) for layer in layers]}, coupling), figures)

    inches, dpi = figure.get_size_inches(), figures[-1][1]["dpi"]
    assert max(inches) <= 60.01
    assert inches[0] * inches[1] * dpi**2 <= 2.001e7
    # Names do not run into each other.
    assert figure.axes[0].get_yticklabels()[0].get_fontsize() < inches[1] * 72 / depth


def test_names_are_written_as_they_are(figures):
    model = nn.Module()
    model.add_module("a$b_1$", nn.Linear(4, 3))
    model.forward = lambda x: model.get_submodule("a$b_1$")(x)

    figure = drawn(prunable_groups(model, torch.zeros(2, 4)), figures)
    figure.draw_without_rendering()

    assert names(figure) == ["a$b_1$"]


def test_files_open(tmp_path):
    groups = prunable_groups(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), torch.zeros(2, 4))

    draw_groups(groups, tmp_path / "groups.png", "two layers")
    draw_groups(groups, str(tmp_path / "groups.svg"))

    with Image.open(tmp_path / "groups.png") as image:
        colors = {color for _, color in image.convert("RGB").getcolors(1 << 20)}
    assert {READS, WRITES, OWNED, STAYS} <= colors
    assert ElementTree.parse(tmp_path / "groups.svg").getroot().tag.endswith("svg")


def test_other_files_and_nothing_to_draw_are_refused(tmp_path):
    groups = prunable_groups(nn.Sequential(nn.Linear(4, 3)), torch.zeros(2, 4))

    with pytest.raises(
        InputError, match=r"expected a picture whose name ends in \.png, \.svg, \.pdf, got .*groups\.gif"
    ):
        draw_groups(groups, tmp_path / "groups.gif")
    with pytest.raises(InputError, match="expected a model with convolutions or linear layers, got groups of none"):
        draw_groups(prunable_groups(nn.PReLU(), torch.zeros(2, 4)), tmp_path / "groups.png")
    assert not list(tmp_path.iterdir())
