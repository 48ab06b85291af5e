"""What can be removed, and why filters that are zero stay."""

import torch
from networks import conv
from torch import nn

from lightning_prune.slimming import TracedModel
from lightning_prune.slimming.channels.coupling import follow_channels
from lightning_prune.slimming.channels.removal import removable, zero_but_kept

IMAGE = (1, 3, 32, 32)


def test_reasons_of_filters_that_stay_are_given():
    model = nn.Sequential(conv(3, 8), nn.GroupNorm(1, 8), conv(8, 6), nn.GroupNorm(2, 6), conv(6, 5), conv(5, 4))
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[2].weight[:2] = 0
        model[4].weight[1] = 0
        model[5].weight[2] = 0
        model[5].bias[2] = 0
    coupling, zero = follow_channels(model, TracedModel(model, (torch.zeros(IMAGE),)).program)
    found = zero_but_kept(coupling, zero, model, removable(coupling, zero))
    assert {reason.split(":")[0]: layers for reason, layers in found.items()} == {
        "lie across a layer norm": [("0", 3)],
        "still reach a layer": [("2", 2), ("4", 1)],
        "are outputs of the model": [("5", 1)],
    }
