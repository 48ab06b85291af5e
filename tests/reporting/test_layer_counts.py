"""What is left of each layer, against numbers worked by hand and against other counts."""

import csv
import math

import pytest
import torch
from torch import nn

from lightning_prune import prunable_groups, slim
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.reporting.layer_counts import LayerCount, layer_counts, macs_shares, write_layers
from lightning_prune.reporting.mac_counting import macs


def two_layers() -> nn.Sequential:
    """A convolution of which two of six filters are zero, and a linear layer of which three weights are."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[0].weight[:2], model[0].bias[:2] = 0, 0
        model[4].weight[0, :3] = 0
    return model


def test_counts_are_those_worked_by_hand():
    model, images = two_layers(), torch.randn(2, 3, 5, 5)

    alone = layer_counts(model, example_input=images)
    both = layer_counts(model, slim(model, images), images)

    # 3 x 3 positions, and 4 of 6 filters in the slim model, which the linear layer reads.
    assert alone == [LayerCount("0", (6, 3, 3, 3), 108, 6, 4, 9 * 162), LayerCount("4", (4, 6), 21, 4, 4, 24)]
    assert both == [LayerCount("0", (6, 3, 3, 3), 108, 6, 4, 9 * 108), LayerCount("4", (4, 6), 21, 4, 4, 16)]
    assert [layer.sparsity for layer in both] == pytest.approx([54 / 162, 3 / 24])
    assert macs_shares(both) == pytest.approx([972 / 988, 16 / 988])


def test_macs_of_layers_add_up_to_those_of_the_network():
    network, images = digits_resnet(), torch.randn(3, 1, 8, 8)
    for group in prunable_groups(network, images):
        group.zero(network, range(group.size // 4))
    small = slim(network, images)

    layers = layer_counts(network, small, images)

    assert sum(layer.macs for layer in layers) == macs(small, images)
    assert sum(macs_shares(layers)) == pytest.approx(1)
    outputs = [m for m in small.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer.channels_left for layer in layers] == [len(module.weight) for module in outputs]
    stored = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer.nonzeros for layer in layers] == [int((weight != 0).sum()) for weight in stored]


def test_without_an_input_macs_are_not_known():
    layers = layer_counts(two_layers())

    assert [layer.channels_left for layer in layers] == [4, 4]
    assert all(math.isnan(number) for number in (*(layer.macs for layer in layers), *macs_shares(layers)))


def test_layers_that_the_slim_model_lacks_have_nothing_left():
    images = torch.randn(2, 3, 5, 5)
    without = two_layers()
    without[0] = nn.Conv2d(3, 6, 3)
    without[4] = nn.Identity()

    _, gone = layer_counts(two_layers(), without, images)

    assert (gone.channels, gone.channels_left, gone.macs) == (4, 0, 0.0)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_have_their_outputs_in_another_place(groups):
    layer = nn.ConvTranspose2d(4, 6, 2, groups=groups, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[: 4 // groups, 0] = 0  # the first output of the first group

    (count,) = layer_counts(nn.Sequential(layer), example_input=torch.randn(1, 4, 3, 3))

    outputs = layer(torch.ones(1, 4, 3, 3))[0].flatten(1)
    assert (count.channels, count.channels_left) == (6, int((outputs != 0).any(dim=1).sum())) == (6, 5)
    assert count.macs == 4 * 9 * 6 * 4 / groups


def test_projections_of_attention_are_told_apart_and_what_is_made_of_other_tensors_is_not_known():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
            self.last = nn.utils.parametrizations.weight_norm(nn.Linear(8, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.attend(x, x, x)[0])

    layers = {layer.layer: layer for layer in layer_counts(Both(), example_input=torch.randn(2, 5, 8))}

    assert layers["attend"].macs == 5 * 8 * 24
    assert layers["attend.out_proj"].macs == 5 * 8 * 8
    assert math.isnan(layers["last"].macs)


def test_all_layers_are_written_with_empty_cells_for_what_is_not_known(tmp_path):
    layers = [LayerCount("a", (2, 3), 3, 2, 1, 6.0), LayerCount("b", (4, 3), 12, 4, 4, math.nan)]

    write_layers(tmp_path / "layers.csv", layers)

    with (tmp_path / "layers.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first == {
        "layer": "a",
        "shape": "2x3",
        "weights": "6",
        "nonzeros": "3",
        "sparsity": "0.500000",
        "channels": "2",
        "channels_left": "1",
        "macs": "6",
        "macs_share": "1.000000",
    }
    assert (second["macs"], second["macs_share"]) == ("", "")
