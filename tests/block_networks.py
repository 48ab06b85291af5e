"""Networks of residual blocks and of branches, and where the output of each block and branch appears."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from networks import Net, conv, conv_bn
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.models.googlenet import Inception
from lightning_prune.models.mobilenet_v2 import InvertedResidual
from lightning_prune.models.resnet import ResNet
from lightning_prune.slimming import couple
from lightning_prune.slimming.channels.blocks import Structure

SMALL = (2, 3, 16, 16)
BRANCHES = ("branch1x1", "branch3x3", "branch5x5", "branch_pool")


def whole(*layers: nn.Module, width: int = 8) -> nn.Module:
    """Put a stem before some layers and a classifier behind them."""
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
    return nn.Sequential(conv_bn(3, 8), *layers, head)


# Foreign code ---------------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """That of torchvision."""

    def __init__(self, cin: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, stride=stride, bias=False), nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace=True)
        self.conv2, self.bn2 = conv(cout, cout, bias=False), nn.BatchNorm2d(cout)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(conv(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """That of torchvision, with functional activations: the stride is in the middle."""

    def __init__(self, cin: int, width: int, cout: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(cin, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, stride=stride, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, cout, 1, bias=False), nn.BatchNorm2d(cout)
        self.downsample = nn.Sequential()
        if stride != 1:
            self.downsample = nn.Sequential(conv(cin, cout, 1, stride=stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        return F.relu(self.downsample(x) + self.bn3(self.conv3(out)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, 2, 1), nn.Conv2d(2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


def residual(*layers: nn.Module, join: Callable[[Net, Tensor], Tensor] = lambda net, x: x + net.inner(x)) -> nn.Module:
    return Net(join, inner=nn.Sequential(*layers))


def squeezed() -> nn.Module:
    """Squeeze and excite between the convolutions of a block, each called by the block itself."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return x + net.norm(net.project(net.gate(net.expand(x))))

    modules = {"expand": conv_bn(8, 12), "gate": SqueezeExcite(12)}
    return Net(forward, **modules, project=conv(12, 8, 1, bias=False), norm=nn.BatchNorm2d(8))


def layer_scale() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        return x + net.probe(net.gamma * net.inner(x))

    inner = nn.Sequential(conv(8, 8, groups=8), conv(8, 12, 1), nn.GELU(), conv(12, 8, 1))
    return Net(forward, inner=inner, gamma=nn.Parameter(torch.rand(8, 1, 1)), probe=nn.Identity())


def pre_activation() -> nn.Module:
    layers = nn.BatchNorm2d(8), nn.ReLU(inplace=True), conv(8, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 8)
    return residual(*layers, join=lambda net, x: net.inner(x.clone()).add_(x))


def transformer() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        for block in net.blocks:
            y = block["norm1"](x)
            q, k, v = (block[key](y) for key in "qkv")
            x = x + block["out"](torch.softmax(q @ k.transpose(1, 2), dim=-1) @ v)
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return net.head(x.mean(dim=1))

    def block() -> nn.Module:
        linear = {key: nn.Linear(8, 8) for key in ("q", "k", "v", "out")}
        norms = {"norm1": nn.LayerNorm(8), "norm2": nn.LayerNorm(8)}
        return nn.ModuleDict(linear | norms | {"up": nn.Linear(8, 12), "down": nn.Linear(12, 8)})

    return Net(forward, patches=conv(3, 8, 1, stride=4), blocks=nn.ModuleList([block(), block()]), head=nn.Linear(8, 5))


def fire() -> nn.Module:
    """Parallel branches by hand, with what is called on their outputs: pooling, activations, another concatenation."""

    def forward(net: Net, x: Tensor) -> Tensor:
        one = F.leaky_relu(net.bn1(net.conv1(x)), 0.1)
        three = F.max_pool2d(net.three(x), 2)
        return torch.cat([net.plain(F.avg_pool2d(x, 2)), one, three, F.avg_pool2d(x, 2)], 1)

    one = {"conv1": conv(8, 6, 1, stride=2), "bn1": nn.BatchNorm2d(6)}
    return Net(forward, **one, three=conv_bn(8, 4), plain=conv(8, 5))


def norm_behind() -> nn.Module:
    """Branches without normalization, which that of the concatenation gives them."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return F.relu(net.norm(F.max_pool2d(torch.cat((net.one(x), net.three(x)), 1), 2)))

    return Net(
        forward, one=conv(8, 6, 1), three=nn.Sequential(conv(8, 5), nn.ReLU(), conv(5, 4)), norm=nn.BatchNorm2d(10)
    )


@dataclass(frozen=True)
class Case:
    """A model, and where the output of each structure appears: a module, and channels of its output."""

    build: Callable[[], nn.Module]
    outputs: dict[str, str | tuple[str, slice]]
    size: tuple[int, ...] = SMALL
    kind: str = "block"


CASES = {
    "resnet-A": Case(
        lambda: ResNet((2, 1, 1), (4, 8, 16)),
        {name: f"{name}.bn2" for name in ("layer1.0", "layer1.1", "layer2.0", "layer3.0")},
    ),
    "resnet-B": Case(
        lambda: ResNet((1, 2, 1), (4, 8, 16), shortcut="B"),
        {name: f"{name}.bn2" for name in ("layer1.0", "layer2.0", "layer2.1", "layer3.0")},
    ),
    "basic": Case(
        lambda: whole(BasicBlock(8, 8), BasicBlock(8, 16, 2), BasicBlock(16, 16), width=16),
        {"1": "1.bn2", "2": "2.bn2", "3": "3.bn2"},
    ),
    "bottleneck": Case(
        lambda: whole(Bottleneck(8, 4, 8), Bottleneck(8, 4, 16, 2), Bottleneck(16, 4, 16), width=16),
        {"1": "1.bn3", "2": "2.bn3", "3": "3.bn3"},
        (3, 3, 15, 15),
    ),
    "mobilenet": Case(
        lambda: whole(*(InvertedResidual(*sizes, 2) for sizes in ((8, 8, 1), (8, 16, 2), (16, 16, 1))), width=16),
        {"1": "1.conv", "3": "3.conv"},
    ),
    "squeeze-excite": Case(lambda: whole(squeezed(), squeezed()), {"1": "1.norm", "2": "2.norm"}),
    "layer-scale": Case(lambda: whole(layer_scale(), layer_scale()), {"1": "1.probe", "2": "2.probe"}),
    "pre-activation": Case(lambda: whole(pre_activation(), pre_activation()), {"1": "1.inner", "2": "2.inner"}),
    "transformer": Case(
        transformer, {f"blocks.{n}.{layer}": f"blocks.{n}.{layer}" for n in (0, 1) for layer in ("out", "down")}
    ),
    "googlenet": Case(
        lambda: whole(Inception(8, 4, 6, 6, 6, 8, 5), Inception(23, 4, 6, 6, 6, 8, 5), width=23),
        {f"{n}.{branch}": f"{n}.{branch}" for n in (1, 2) for branch in BRANCHES},
        kind="branch",
    ),
    "fire": Case(
        lambda: whole(fire(), conv(23, 8), nn.ReLU()),
        {"1.bn1": "1.bn1", "1.three": "1.three", "1.plain": "1.plain"},
        kind="branch",
    ),
    "norm-behind": Case(
        lambda: whole(norm_behind(), conv(10, 8)),
        {"1.one": ("1.norm", slice(0, 6)), "1.three": ("1.norm", slice(6, 10))},
        kind="branch",
    ),
}


# What is done with them -----------------------------------------------------------------------------------------------


def find(model: nn.Module, size: tuple[int, ...] = SMALL, kind: str = "block") -> dict[str, Structure]:
    return {one.name: one for one in couple(model, torch.zeros(size)).structures(kind)}


@torch.no_grad()
def scale(model: nn.Module, members: tuple, factor: float) -> None:
    """Multiply what belongs to a structure, through torch's own indexing."""
    parameters = dict(model.named_parameters())
    for member in members:
        parameters[member.name].transpose(0, member.dim)[member.index[0]] *= factor


def silence(model: nn.Module, structures: list[Structure], all_of_it: bool = True) -> None:
    for one in structures:
        scale(model, one.members if all_of_it else one.gates, 0.0)
