"""Whole blocks and branches: which there are, and what scales them."""

import copy

import pytest
import torch
from block_networks import CASES, SMALL, SqueezeExcite, find, residual, scale, silence, whole
from networks import Net, conv, conv_bn, randomise
from torch import Tensor, nn

from lightning_prune.models.densenet import DenseLayer
from lightning_prune.models.resnet import ResNet
from lightning_prune.slimming import couple


def output(model: nn.Module, where: str | tuple[str, slice], x: Tensor) -> Tensor:
    path, channels = where if isinstance(where, tuple) else (where, slice(None))
    found = []
    hook = model.get_submodule(path).register_forward_hook(lambda module, inputs, out: found.append(out.clone()))
    torch.manual_seed(0)
    with torch.no_grad():
        model(x)
    hook.remove()
    return found[0][:, channels]


@pytest.mark.parametrize("name", CASES)
def test_gates_scale_the_output(name):
    case = CASES[name]
    model, x = randomise(case.build()).double(), torch.randn(case.size, dtype=torch.float64)
    found = {one.name: one for one in couple(model, x).structures(case.kind)}
    assert list(found) == list(case.outputs)
    for structure, where in case.outputs.items():
        for training in (True, False):
            model.train(training)
            full = copy.deepcopy(model)
            before = output(full, where, x)
            scaled, silent = copy.deepcopy(model), copy.deepcopy(model)
            scale(scaled, found[structure].gates, 0.37)
            scale(silent, found[structure].gates, 0.0)
            torch.testing.assert_close(output(scaled, where, x), 0.37 * before, rtol=1e-10, atol=1e-12)
            assert before.abs().max() > 0
            assert not output(silent, where, x).any()


# What is none ---------------------------------------------------------------------------------------------------------


def excited_behind() -> nn.Module:
    """Squeeze and excite behind the last layer: its sigmoid sees what it scales."""
    return residual(conv_bn(8, 8), conv(8, 8), nn.BatchNorm2d(8), SqueezeExcite(8))


def shared() -> nn.Module:
    block = residual(conv_bn(8, 8), conv(8, 8))
    return nn.Sequential(block, block)


def towers() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head((net.one(x[:, :1]) + net.two(x[:, 1:])).mean(dim=(2, 3)))

    return Net(forward, one=conv(1, 8), two=nn.Sequential(conv(2, 8), nn.ReLU(), conv(8, 8)), head=nn.Linear(8, 5))


NONE = {
    "densenet": lambda: whole(DenseLayer(8, 4), DenseLayer(12, 4), width=16),
    "activation that saturates": lambda: whole(residual(conv_bn(8, 8, act=nn.ReLU6))),
    "sigmoid of itself": lambda: whole(excited_behind()),
    "shared weights": lambda: whole(shared()),
    "as long as its shortcut": lambda: whole(
        Net(lambda net, x: net.one(x) + net.two(x), one=conv_bn(8, 8), two=conv_bn(8, 8))
    ),
    "nothing but a position": lambda: whole(
        Net(lambda net, x: net.inner(x) + net.place, inner=conv(8, 8), place=nn.Parameter(torch.rand(2, 8, 16, 16)))
    ),
    "read twice": lambda: whole(Net(lambda net, x: (y := net.inner(x)) + x * y.mean(), inner=conv(8, 8))),
    "branch and identity": lambda: whole(
        Net(lambda net, x: torch.cat((x, net.inner(x)), 1), inner=conv_bn(8, 8)), width=16
    ),
    "normalized and not": lambda: whole(
        Net(
            lambda net, x: (y := torch.cat((net.one(x), net.two(x)), 1)) * 0 + net.norm(y),
            one=conv(8, 4),
            two=conv(8, 4),
            norm=nn.BatchNorm2d(8),
        )
    ),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_block_and_no_branch(name):
    coupling = couple(NONE[name](), torch.zeros(SMALL))
    assert coupling.structures("block") == coupling.structures("branch") == []


def test_two_towers_with_inputs_of_their_own_are_no_block():
    def forward(net: Net, x: Tensor, y: Tensor) -> Tensor:
        return (net.one(x) + net.two(y)).mean(dim=(2, 3))

    model = Net(forward, one=conv(3, 8), two=nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8)))
    assert couple(model, (torch.zeros(SMALL), torch.zeros(SMALL))).structures("block") == []


def test_blocks_do_not_depend_on_which_weights_are_zero():
    model = ResNet((1, 1, 1), (4, 8, 16))
    dense = list(find(model))
    silence(model, list(find(model).values()))
    assert list(find(model)) == dense == ["layer1.0", "layer2.0", "layer3.0"]
