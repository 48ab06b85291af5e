"""Slim models with random weights."""

import math

import torch
from torch import nn

from lightning_prune.models.resnet import ResNet
from lightning_prune.runs.scratch import epochs_of_same_compute, reinitialize


def test_weights_are_distributed_as_if_drawn_at_the_slim_width() -> None:
    small, fresh = ResNet((1, 1, 1), (24, 60, 70)), ResNet((1, 1, 1), (64, 128, 256))
    for norm in (module for module in small.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean, norm.running_var = torch.rand(norm.num_features), torch.rand(norm.num_features)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    reinitialize(small, fresh)
    for name, module in small.named_modules():
        if isinstance(module, nn.Conv2d):
            # He et al. 2015, over the fan-out; the narrowest layer has 648 weights, the next ones 5,184 and more.
            expected = math.sqrt(2 / (9 * module.out_channels))
            assert abs(module.weight.std().item() / expected - 1) < (0.1 if name == "conv1" else 0.04), name
        if isinstance(module, nn.BatchNorm2d):
            new = (module.weight, module.bias, module.running_mean, module.running_var)
            assert [tensor.unique().tolist() for tensor in new if tensor is not None] == [[1], [0], [0], [1]]
    assert small.fc.weight.abs().max() <= 1 / math.sqrt(70)  # torch's own: uniform, of this bound
    assert abs(small.fc.weight.std().item() * math.sqrt(3 * 70) - 1) < 0.1
    after = small.state_dict()
    assert {name: tensor.shape for name, tensor in before.items()} == {name: t.shape for name, t in after.items()}
    weights = [name for name in before if name.endswith("weight")]
    assert not any(torch.isclose(before[name], after[name]).all() for name in weights)


def test_what_has_lost_nothing_has_what_the_code_draws() -> None:
    small, fresh = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    nn.init.constant_(fresh[1].weight, 0.5)
    reinitialize(small, fresh)
    assert all(torch.equal(tensor, fresh.state_dict()[name]) for name, tensor in small.state_dict().items())


def test_epochs_of_the_paper() -> None:
    # ResNet-56-B of Liu et al.: 160 epochs become 220; on ImageNet twice as many are the most.
    assert epochs_of_same_compute(160, 125_485_696, 90_907_264, 2.0) == 220
    assert epochs_of_same_compute(90, 300, 100, 2.0) == 180
    assert epochs_of_same_compute(90, 300, 100, None) == 270
