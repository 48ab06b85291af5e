"""Small networks of convolutions, and what is left of them once half of each group of channels is gone."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from lightning_prune.models.mobilenet_v2 import mobilenet_v2
from lightning_prune.models.resnet import ResNet, resnet20
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.slimming.channels.groups import Group

Inputs = Tensor | tuple[Tensor, ...]


def conv(cin: int, cout: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, **options)


def conv_bn(cin: int, cout: int, kernel: int = 3, act: type[nn.Module] = nn.ReLU, **options) -> nn.Sequential:
    return nn.Sequential(conv(cin, cout, kernel, bias=False, **options), nn.BatchNorm2d(cout), act())


def randomise(model: nn.Module) -> nn.Module:
    """Give every normalization statistics and an affine map that are far from the identity."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            if module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
    return model


@torch.no_grad()
def mask(model: nn.Module, groups: list[Group], fraction: float = 0.5) -> None:
    """Zero a random fraction of each group's units, rounded down, in all that belongs to them."""
    parameters = dict(model.named_parameters())
    for group in groups:
        units = torch.randperm(group.size)[: int(fraction * group.size)]
        for member in group.members:
            if member.role not in ("reader", "other"):
                parameters[member.name].index_fill_(member.dim, member.index[units].reshape(-1), 0)


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    model = copy.deepcopy(model).eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        return tree_leaves(model(*as_tuple(inputs)))


def difference(model: nn.Module, other: nn.Module, inputs: Inputs) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    pairs = list(zip(outputs(model, inputs), outputs(other, inputs), strict=True))
    for a, b in pairs:
        assert a.shape == b.shape
        assert a.abs().max() > 0
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


class Net(nn.Module):
    """Modules by name, and what `forward` does with them."""

    def __init__(self, forward: Callable[..., object], **modules: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self._forward = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, *inputs: Tensor) -> object:
        return self._forward(self, *inputs)


def pooled(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


class ForeignBlock(nn.Module):
    """A CIFAR basic block as found on the web, whose option A shortcut is a function with numbers in it."""

    def __init__(self, cin: int, cout: int, stride: int, shortcut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(cin, cout, stride=stride, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = conv(cout, cout, bias=False), nn.BatchNorm2d(cout)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return F.relu(out)


def foreign_resnet(widening: Callable[[int], Callable[[Tensor], Tensor]]) -> nn.Module:
    stages = [ForeignBlock(16, 16, 1, nn.Identity())]
    stages += [ForeignBlock(width, 2 * width, 2, widening(width)) for width in (16, 32)]
    return nn.Sequential(conv_bn(3, 16), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def padded(width: int) -> Callable[[Tensor], Tensor]:
    return lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, width // 2, width // 2), "constant", 0)


def doubled(width: int) -> Callable[[Tensor], Tensor]:
    pool = nn.AvgPool2d(1, 2)
    return lambda x: torch.cat((pool(x), pool(x).mul(0)), 1)


def dense_net() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        for layer in (net.layer1, net.layer2):
            x = torch.cat([x, layer(x)], 1)
        return net.head(pooled(F.relu(net.norm(x))))

    def layer(cin: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU(), conv_bn(cin, 16, 1), conv(16, 4, bias=False))

    return Net(
        forward, stem=conv(3, 8), layer1=layer(8), layer2=layer(12), norm=nn.BatchNorm2d(16), head=nn.Linear(16, 5)
    )


def fire() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.squeeze(x))
        return pooled(net.last(torch.cat([F.relu(net.one(x)), F.relu(net.three(x))], 1)))

    return Net(forward, squeeze=conv(3, 8, 1), one=conv(8, 12, 1), three=conv(8, 16), last=conv(28, 5, 1))


def grouped(cin: int, cout: int, groups: int) -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head(pooled(net.last(net.mid(net.stem(x)))))

    stem, mid = conv_bn(3, cin), conv_bn(cin, cout, groups=groups)
    return Net(forward, stem=stem, mid=mid, last=conv_bn(cout, 6, 1), head=nn.Linear(6, 5))


def squeeze_excite(gate: Callable[[Tensor], Tensor]) -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = x * gate(net.up(F.relu(net.down(x.mean((2, 3), keepdim=True)))))
        return net.head(pooled(net.last(x)))

    return Net(
        forward, stem=conv_bn(3, 16), down=conv(16, 4, 1), up=conv(4, 16, 1), last=conv(16, 6), head=nn.Linear(6, 5)
    )


def linear_squeeze_excite() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        n, c = x.size()[:2]
        return net.last(x * net.gate(x.mean((2, 3)).view(n, c)).view(n, c, 1, 1).expand_as(x))

    gate = nn.Sequential(nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.Sigmoid())
    return Net(forward, stem=conv_bn(3, 16), gate=gate, last=conv(16, 6))


def decoder() -> nn.Module:
    up = nn.ConvTranspose2d(8, 6, 2, stride=2)
    return nn.Sequential(conv_bn(3, 8, stride=2), up, nn.BatchNorm2d(6), nn.ReLU(), conv(6, 4), nn.ReLU(), conv(4, 3))


def u_net() -> nn.Module:
    def forward(net: Net, x: Tensor) -> dict[str, Tensor]:
        first = net.down1(x)
        second = net.down2(F.max_pool2d(first, 2))
        upsampled = F.interpolate(second, scale_factor=2, mode="bilinear")
        return {"segments": net.last(net.up(torch.cat([upsampled, first], 1)))}

    return Net(forward, down1=conv_bn(3, 8), down2=conv_bn(8, 12), up=conv_bn(20, 10), last=conv(10, 2, 1))


def shuffled() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        kept, worked = x.chunk(2, dim=1)
        x = torch.cat((kept, net.branch(worked)), 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return net.head(pooled(net.last(x)))

    return Net(forward, stem=conv_bn(3, 16), branch=conv_bn(8, 8), last=conv_bn(16, 6, 1), head=nn.Linear(6, 5))


def gated() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        a, b = torch.chunk(net.stem(x), 2, dim=1)
        return net.last(F.glu(net.mid(a * torch.sigmoid(b)), dim=1))

    return Net(forward, stem=conv_bn(3, 16, act=nn.Identity), mid=conv(8, 12), last=conv(6, 4))


def in_place() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu_(net.norm(net.stem(x)))
        y = net.mid(x)
        y += x
        y *= 0.5
        y.clamp_(min=-1.0)
        F.relu(y.view(len(y), -1), inplace=True)
        return net.last(y)

    return Net(forward, stem=conv(3, 8), norm=nn.BatchNorm2d(8), mid=conv(8, 8, bias=False), last=conv(8, 4))


def functional() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.conv2d(x, net.first, padding=1)
        x = F.relu(F.batch_norm(x, net.mean, net.variance, net.scale, net.shift))
        return F.linear(pooled(F.relu(F.conv2d(x, net.second, net.bias))), net.third)

    net = Net(
        forward,
        first=nn.Parameter(torch.randn(8, 3, 3, 3)),
        scale=nn.Parameter(torch.rand(8) + 0.5),
        shift=nn.Parameter(torch.randn(8)),
        second=nn.Parameter(torch.randn(6, 8, 3, 3)),
        bias=nn.Parameter(torch.randn(6)),
        third=nn.Parameter(torch.randn(5, 6)),
    )
    net.register_buffer("mean", torch.randn(8))
    net.register_buffer("variance", torch.rand(8) + 0.5, persistent=False)
    return net


def shared_layer() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.stem(x))
        return net.last(F.relu(net.twice(F.relu(net.twice(x)))))

    return Net(forward, stem=conv(3, 8), twice=conv(8, 8), last=conv(8, 4))


def tied_parameter() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.stem(x))
        return net.last(F.relu(net.depth2(F.relu(net.b(F.relu(net.depth1(F.relu(net.a(x)))))))))

    net = Net(
        forward, stem=conv(3, 8), a=conv(8, 8), b=conv(8, 8), depth1=conv(8, 8, groups=8), depth2=conv(8, 8, groups=8),
        last=conv(8, 4),
    )  # fmt: skip
    net.b.weight = net.a.weight
    net.depth2.weight = net.depth1.weight
    return net


def pre_activation() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        for norm1, conv1, norm2, conv2 in (net.block1, net.block2):
            x = x + conv2(F.relu(norm2(conv1(F.relu(norm1(x))))))
        return net.head(pooled(F.relu(net.norm(x))))

    def block() -> nn.Module:
        parts = nn.BatchNorm2d(8), conv(8, 12, bias=False), nn.BatchNorm2d(12), conv(12, 8, bias=False)
        return nn.ModuleList(parts)

    return Net(
        forward, stem=conv(3, 8), block1=block(), block2=block(), norm=nn.BatchNorm2d(8), head=nn.Linear(8, 5)
    )  # fmt: skip


def control_flow() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        for number, layer in enumerate(net.layers):
            y = layer(x)
            x = x + y if x.shape == y.shape else y
            if number % 2 and x.shape[-1] > 4:
                x = F.max_pool2d(x, 2)
        return pooled(x)

    layers = nn.ModuleList([conv_bn(3, 8), conv_bn(8, 8), conv_bn(8, 12), conv_bn(12, 12), conv(12, 5)])
    return Net(forward, layers=layers)


def two_inputs() -> nn.Module:
    def forward(net: Net, image: Tensor, table: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        features = net.image(image)
        both = torch.cat([pooled(features), F.relu(net.table(table))], 1)
        return net.one(both), {"other": net.other(features)}

    return Net(
        forward, image=conv_bn(3, 8), table=nn.Linear(4, 6), one=nn.Linear(14, 3), other=conv(8, 2)
    )  # fmt: skip


def siamese() -> nn.Module:
    def forward(net: Net, a: Tensor, b: Tensor) -> Tensor:
        return (net.branch(a) - net.branch(b)).abs()

    return Net(forward, branch=ResNet((1, 1, 1), (4, 8, 16)))


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.AvgPool3d(2), nn.Conv3d(8, 6, 1), nn.ReLU(),
        nn.Upsample(scale_factor=2), nn.Conv3d(6, 2, 1),
    )  # fmt: skip


def signal() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5), nn.BatchNorm1d(8), nn.GELU(), nn.MaxPool1d(2), nn.Conv1d(8, 6, 3, groups=2),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def norms() -> nn.Module:
    """Normalization without affine map or without running statistics, and slopes.

    Without an affine map nothing of the first can be masked, so that its channels go on as constants and stay.
    """
    return nn.Sequential(
        conv(3, 8, bias=False), nn.BatchNorm2d(8, affine=False), nn.PReLU(8), conv(8, 8),
        nn.BatchNorm2d(8, track_running_stats=False), nn.PReLU(), conv(8, 8, bias=False),
        nn.InstanceNorm2d(8, affine=True), nn.LeakyReLU(), conv(8, 4),
    )  # fmt: skip


def activations() -> nn.Module:
    kinds = (
        nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.ELU, nn.Mish, nn.Hardtanh, nn.Tanh, nn.Softsign, nn.SELU, nn.CELU,
        nn.Softshrink, nn.Hardshrink, nn.Tanhshrink,
    )  # fmt: skip
    return nn.Sequential(conv(3, 4), *(nn.Sequential(kind(), conv(4, 4)) for kind in kinds))


def written_out() -> nn.Module:
    """Leaky ReLU, casts, a global maximum and a normalization by constants, as people write them by hand."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x).float()
        x = torch.where(x > 0, x, 0.1 * x)
        x = net.mid(x).double().float()
        x = x.masked_fill(x < 0, 0.0) * x.new_full((), 2.0)
        x = F.adaptive_max_pool2d(x, 4).max(dim=-1).values.max(dim=-1)[0]
        return net.head(x / 2 - 0)

    return Net(forward, stem=conv(3, 8), mid=conv(8, 8), head=nn.Linear(8, 3))


def mixer() -> nn.Module:
    """Linear layers over positions, through which channels pass unchanged."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2)
        x = x + net.tokens2(F.gelu(net.tokens1(x)))
        x = x.transpose(1, 2)
        return net.head(F.gelu(net.channels(x)).mean(1))

    return Net(
        forward, patches=nn.Conv2d(3, 8, 4, 4), tokens1=nn.Linear(4, 6, bias=False),
        tokens2=nn.Linear(6, 4, bias=False), channels=nn.Linear(8, 6), head=nn.Linear(6, 3),
    )  # fmt: skip


def flattened() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(32, 5))


def blur_pool() -> nn.Module:
    """A fixed filter a channel in a buffer outside the state dict, and a functional depthwise convolution."""

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), net.blur, stride=2, groups=x.shape[1])
        return net.last(x)

    net = Net(forward, stem=conv_bn(3, 8), last=conv(8, 4))
    net.register_buffer("blur", (torch.ones(8, 1, 3, 3) / 9), persistent=False)
    return net


def compiled_part() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), torch.compile(conv_bn(8, 8), backend="eager"), conv(8, 4))


IMAGE = partial(torch.randn, 2, 3, 8, 8)


@dataclass(frozen=True)
class Case:
    """A model, inputs, and how weights are shaped once half of each group is gone, worked out by hand.

    With `relies`, its code fixes how many channels it has where the graph alone does not tell.
    """

    build: Callable[[], nn.Module]
    expected: dict[str, tuple[int, ...]]
    inputs: Callable[[], Inputs] = IMAGE
    relies: bool = False


CONVOLUTIONAL = {
    "resnet20-A": Case(
        resnet20,
        {
            "conv1": (8, 3),
            "layer1.2.conv2": (8, 8),
            "layer2.0.conv1": (16, 8),
            "layer2.0.conv2": (16, 16),
            "layer3.2.conv2": (32, 32),
        },
    ),
    "resnet20-B": Case(
        partial(resnet20, shortcut="B"),
        {"conv1": (8, 3), "layer1.2.conv2": (8, 8), "layer2.0.downsample.0": (16, 8), "layer3.2.conv2": (32, 32)},
    ),
    # The 16 channels of the first stage are 16 of the 32 and of the 64; the others face padding and stay.
    "resnet-padded": Case(
        partial(foreign_resnet, padded),
        {"0.0": (8, 3), "1.conv1": (8, 8), "2.conv1": (16, 8), "2.conv2": (24, 16), "3.conv2": (56, 32), "6": (10, 56)},
    ),
    # Every channel of the first stage is two of the second and four of the third.
    "resnet-doubled": Case(
        partial(foreign_resnet, doubled),
        {"0.0": (8, 3), "2.conv1": (16, 8), "2.conv2": (16, 16), "3.conv2": (32, 32), "6": (10, 32)},
    ),
    "vgg16-linear": Case(
        vgg16_bn,
        {"features.0": (32, 3), "features.40": (256, 256), "classifier": (10, 256)},
        partial(torch.randn, 2, 3, 32, 32),
    ),
    "vgg16-mlp": Case(
        partial(vgg16_bn, head="mlp"),
        {"features.0": (32, 3), "features.40": (256, 256), "classifier.0": (256, 256)},
        partial(torch.randn, 2, 3, 32, 32),
    ),
    "mobilenet-v2": Case(
        partial(mobilenet_v2, width_mult=0.25),
        {
            "features.0.0": (4, 3),
            "features.1.conv.0.0": (4, 1),
            "features.2.conv.1.0": (24, 1),
            "features.18.0": (640, 40),
        },
    ),
    "densenet": Case(
        dense_net,
        {"stem": (4, 3), "layer1.2.0": (8, 4), "layer1.3": (2, 8), "layer2.2.0": (8, 6), "head": (5, 8)},
    ),
    "fire": Case(fire, {"squeeze": (4, 3), "one": (6, 4), "three": (8, 4), "last": (5, 14)}),
    "resnext": Case(partial(grouped, 32, 32, 8), {"stem.0": (16, 3), "mid.0": (16, 4), "last.0": (3, 16)}),
    "two-groups": Case(partial(grouped, 8, 8, 2), {"stem.0": (4, 3), "mid.0": (4, 2), "last.0": (3, 4)}),
    "depthwise-twice": Case(partial(grouped, 8, 16, 8), {"stem.0": (4, 3), "mid.0": (8, 1), "last.0": (3, 8)}),
    "se-sigmoid": Case(partial(squeeze_excite, torch.sigmoid), {"stem.0": (8, 3), "down": (2, 8), "up": (8, 2)}),
    "se-hardsigmoid": Case(partial(squeeze_excite, F.hardsigmoid), {"stem.0": (8, 3), "down": (2, 8), "last": (3, 8)}),
    "se-linear": Case(linear_squeeze_excite, {"stem.0": (8, 3), "gate.0": (2, 8), "gate.2": (8, 2), "last": (6, 8)}),
    "decoder": Case(decoder, {"0.0": (4, 3), "1": (4, 3), "4": (2, 3), "6": (3, 2)}),
    "u-net": Case(u_net, {"down1.0": (4, 3), "down2.0": (6, 4), "up.0": (5, 10), "last": (2, 5)}),
    "shuffle": Case(shuffled, {"stem.0": (8, 3), "branch.0": (4, 4), "last.0": (3, 8)}),
    "gates": Case(gated, {"stem.0": (8, 3), "mid": (6, 4), "last": (4, 3)}),
    "in-place": Case(in_place, {"stem": (4, 3), "mid": (4, 4), "last": (4, 4)}),
    "functional": Case(functional, {"first": (4, 3), "second": (3, 4), "third": (5, 3)}),
    "shared-layer": Case(shared_layer, {"stem": (4, 3), "twice": (4, 4), "last": (4, 4)}),
    "tied-parameter": Case(tied_parameter, {"a": (4, 4), "b": (4, 4), "depth2": (4, 1), "last": (4, 4)}),
    "pre-activation": Case(pre_activation, {"stem": (4, 3), "block1.1": (6, 4), "block2.3": (4, 6), "head": (5, 4)}),
    "control-flow": Case(control_flow, {"layers.0.0": (4, 3), "layers.3.0": (6, 6), "layers.4": (5, 6)}),
    "two-inputs": Case(
        two_inputs,
        {"image.0": (4, 3), "table": (3, 4), "one": (3, 7), "other": (2, 4)},
        lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 4)),
    ),
    "siamese": Case(
        siamese,
        {"branch.conv1": (2, 3), "branch.layer2.0.conv1": (4, 2), "branch.layer3.0.conv2": (8, 8)},
        lambda: (torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)),
    ),
    "volume": Case(volume, {"0": (4, 1), "4": (3, 4), "7": (2, 3)}, partial(torch.randn, 2, 1, 8, 8, 8)),
    "signal": Case(signal, {"0": (4, 2), "4": (4, 2), "7": (3, 4)}, partial(torch.randn, 2, 2, 32)),
    "norms": Case(norms, {"3": (4, 8), "6": (4, 4), "9": (4, 4)}),
    "activations": Case(activations, {"0": (2, 3), "1.1": (2, 2), "13.1": (2, 2), "14.1": (4, 2)}),
    "written-out": Case(written_out, {"stem": (4, 3), "mid": (4, 4), "head": (3, 4)}),
    "mixer": Case(mixer, {"patches": (4, 3), "tokens1": (3, 4), "tokens2": (4, 3), "channels": (3, 4), "head": (3, 3)}),
    "flattened": Case(flattened, {"0.0": (4, 3), "4": (5, 16)}),
    "blur-pool": Case(blur_pool, {"stem.0": (4, 3), "last": (4, 4)}),
    "compiled": Case(compiled_part, {"0.0": (4, 3), "1._orig_mod.0": (4, 4), "2": (4, 4)}),
}


# Networks whose modules tell sizes by attributes, or mix channels in uncommon ways ----------------------------------


class SplitUnit(nn.Module):
    """A shuffle unit that tells its halves by attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.half, self.branch = 8, conv_bn(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = torch.split(x, [self.half, self.half], dim=1)
        return F.channel_shuffle(torch.cat((kept, self.branch(worked)), 1), 2)


class SliceUnit(SplitUnit):
    """A shuffle unit that cuts its halves out by slices, and takes every second channel."""

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        x = torch.stack((kept, self.branch(worked)), 2)
        return x.flatten(1, 2)


class Scales(nn.Module):
    """Res2Net: parts of one layer's channels, each of which sees the part before."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.first, self.last = 4, conv_bn(8, 12, 1), conv_bn(12, 8, 1)
        self.layers = nn.ModuleList([conv_bn(4, 4), conv_bn(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(self.first(x), self.width, 1)
        done = [parts[0]]
        for part, layer in zip(parts[1:], self.layers, strict=True):
            done.append(layer(part + done[-1]))
        return x + self.last(torch.cat(done, 1))


class Ghost(nn.Module):
    """Ghost features, of which the last two are cut off by an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.primary, self.cheap = 10, conv_bn(8, 6, 1), conv_bn(6, 6, groups=6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], dim=1)[:, : self.channels]


class DualPath(nn.Module):
    """A dual path block: some channels are added, the others joined."""

    def __init__(self) -> None:
        super().__init__()
        self.added, self.layer = 8, conv_bn(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return torch.cat([x + y[:, : self.added], y[:, self.added :]], 1)


class Selective(nn.Module):
    """Selective kernels: two layers weighed against each other, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv_bn(8, 8), conv_bn(8, 8, 5)])
        self.squeeze, self.excite = conv(8, 4, 1), nn.ModuleList([conv(4, 8, 1), conv(4, 8, 1)])

    def forward(self, x: Tensor) -> Tensor:
        features = torch.stack([layer(x) for layer in self.layers], dim=1)
        summary = F.relu(self.squeeze(features.sum(1).mean((2, 3), keepdim=True)))
        weights = torch.stack([layer(summary) for layer in self.excite], dim=1).softmax(dim=1)
        return (features * weights).sum(dim=1)


class SplitAttention(nn.Module):
    """ResNeSt: the two halves of one layer's channels weighed against each other."""

    def __init__(self) -> None:
        super().__init__()
        self.radix, self.layer = 2, conv_bn(8, 16, groups=2)
        self.squeeze, self.excite = conv(8, 4, 1), conv(4, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        b, c, h, w = x.shape
        x = x.view(b, self.radix, c // self.radix, h, w)
        weights = self.excite(F.relu(self.squeeze(x.sum(1).mean((2, 3), keepdim=True))))
        weights = weights.view(b, self.radix, c // self.radix).softmax(1)
        return (x * weights.view(b, self.radix, c // self.radix, 1, 1)).sum(1)


class SpaceToDepth(nn.Module):
    """Blocks of two by two positions become channels, written by `view`."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).contiguous()
        return x.view(b, c * 4, h // 2, w // 2)


class Focus(nn.Module):
    """The same by slices."""

    def forward(self, x: Tensor) -> Tensor:
        parts = x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]
        return torch.cat(parts, 1)


class Patches(nn.Module):
    """Patches cut out and put together again."""

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, 3, padding=1).relu()
        return F.fold(patches, x.shape[2:], 3, padding=1)


class ChannelsLast(nn.Module):
    """ConvNeXt: a depthwise convolution, a layer norm and linear layers over channels that lie last, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm = conv(8, 8, 7, groups=8), nn.LayerNorm(8)
        self.up, self.down, self.gamma = nn.Linear(8, 20), nn.Linear(20, 8), nn.Parameter(torch.rand(8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class UnitLength(nn.Module):
    """The norm over channels of SSD and CLIP heads, to which channels that are zero add nothing, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.scale


class Responses(nn.Module):
    """Global response norm, which divides by a mean over channels: these stay."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(1, 8, 1, 1)), nn.Parameter(torch.rand(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(p=2, dim=(2, 3), keepdim=True)
        return self.gamma * (x * norm / (norm.mean(1, keepdim=True) + 1e-6)) + self.beta + x


class StandardizedConv(nn.Conv2d):
    """Weight standardization: each filter has mean zero and deviation one, also one that is masked."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-5)
        return F.conv2d(x, flat.view_as(self.weight), self.bias, padding=self.padding)


class Pyramid(nn.Module):
    """Features of two scales made alike, added from the top down, and joined."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv_bn(8, 10), conv_bn(10, 12, stride=2)
        self.side, self.top = conv(10, 6, 1), conv(12, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        top = self.top(self.coarse(fine))
        both = self.side(fine) + F.interpolate(top, size=fine.shape[2:], mode="nearest")
        return torch.cat([both, F.interpolate(top, scale_factor=2, mode="bilinear", align_corners=False)], 1)


class Fusion(nn.Module):
    """HRNet: two scales, each of which is added to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.split, self.up, self.down = conv_bn(8, 12, stride=2), conv(12, 8, 1), conv(8, 12, stride=2)
        self.fine, self.coarse = conv_bn(8, 8), conv_bn(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = self.fine(x), self.coarse(self.split(x))
        fine, coarse = F.relu(fine + F.interpolate(self.up(coarse), scale_factor=2)), F.relu(coarse + self.down(fine))
        return torch.cat([fine, F.interpolate(coarse, scale_factor=2)], 1)


class Flattening(nn.Module):
    """A classifier that tells the size of what it flattens by an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.pool, self.last = 8 * 4, nn.AdaptiveAvgPool2d(2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(x).view(-1, self.features))


class Statistics(nn.Module):
    """Attention to positions by the mean and the maximum over channels: these stay."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.layer(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))


class Lightning(LightningModule):
    """A LightningModule around a network."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net, self.loss = nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), conv(8, 4)), nn.MSELoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return self.loss(self(batch), batch.new_zeros(len(batch), 4, 8, 8))


def between(build: Callable[[], nn.Module], width: int = 8, read: int = 8) -> nn.Module:
    """Return a network with a part between a layer that writes `width` channels, and one that reads `read`."""
    return nn.Sequential(conv_bn(3, width), build(), conv(read, 4, 1))


def alone(build: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), build())


CONVOLUTIONAL |= {
    # Half of eight units, each a channel of both halves.
    "split-unit": Case(partial(between, SplitUnit, 16, 16), {"0.0": (8, 3), "1.branch.0": (4, 4), "2": (4, 8)}),
    "slice-unit": Case(partial(between, SliceUnit, 16, 16), {"0.0": (8, 3), "1.branch.0": (4, 4), "2": (4, 8)}),
    # Two of the four positions of all three parts.
    "scales": Case(
        partial(between, Scales),
        {"0.0": (4, 3), "1.first.0": (6, 4), "1.layers.1.0": (2, 2), "1.last.0": (4, 6), "2": (4, 4)},
    ),
    "ghost": Case(partial(between, Ghost, 8, 10), {"0.0": (4, 3), "1.primary.0": (3, 4), "1.cheap.0": (3, 1)}),
    "dual-path": Case(partial(between, DualPath, 8, 12), {"0.0": (4, 3), "1.layer.0": (6, 4), "2": (4, 6)}),
    "selective": Case(
        partial(between, Selective),
        {"0.0": (4, 3), "1.layers.1.0": (4, 4), "1.squeeze": (2, 4), "1.excite.0": (4, 2), "2": (4, 4)},
    ),
    "split-attention": Case(
        partial(between, SplitAttention),
        {"0.0": (4, 3), "1.layer.0": (8, 2), "1.squeeze": (2, 4), "1.excite": (8, 2), "2": (4, 4)},
    ),
    "space-to-depth": Case(partial(between, SpaceToDepth, 8, 32), {"0.0": (4, 3), "2": (4, 16)}),
    "focus": Case(partial(between, Focus, 8, 32), {"0.0": (4, 3), "2": (4, 16)}),
    "unshuffle": Case(partial(between, partial(nn.PixelUnshuffle, 2), 8, 32), {"0.0": (4, 3), "2": (4, 16)}),
    "shuffle-pixels": Case(partial(between, partial(nn.PixelShuffle, 2), 16, 4), {"0.0": (8, 3), "2": (4, 2)}),
    "patches": Case(partial(between, Patches), {"0.0": (4, 3), "2": (4, 4)}),
    "unit-length": Case(partial(between, UnitLength), {"0.0": (4, 3), "1.scale": (4,), "2": (4, 4)}),
    "group-norm": Case(partial(between, partial(nn.GroupNorm, 4, 8)), {"0.0": (4, 3), "1": (4,), "2": (4, 4)}),
    "one-group": Case(partial(between, partial(nn.GroupNorm, 1, 8)), {"0.0": (8, 3), "1": (8,), "2": (4, 8)}),
    "transposed-groups": Case(
        partial(between, partial(nn.ConvTranspose2d, 8, 16, 2, 2, groups=4), 8, 16),
        {"0.0": (4, 3), "1": (4, 4), "2": (4, 8)},
    ),
    "channels-last": Case(
        partial(between, ChannelsLast), {"0.0": (8, 3), "1.up": (10, 8), "1.down": (8, 10), "2": (4, 8)}
    ),
    "responses": Case(partial(between, Responses), {"0.0": (8, 3), "2": (4, 8)}),
    "standardized": Case(partial(between, partial(StandardizedConv, 8, 8, 3, padding=1)), {"0.0": (8, 3), "1": (8, 8)}),
    "pyramid": Case(
        partial(between, Pyramid, 8, 12),
        {"0.0": (4, 3), "1.fine.0": (5, 4), "1.coarse.0": (6, 5), "1.side": (3, 5), "1.top": (3, 6), "2": (4, 6)},
    ),
    "fusion": Case(
        partial(between, Fusion, 8, 20),
        {"1.split.0": (6, 4), "1.up": (4, 6), "1.down": (6, 4), "1.fine.0": (4, 4), "2": (4, 10)},
    ),
    "flattening": Case(partial(alone, Flattening), {"0.0": (4, 3), "1.last": (5, 16)}),
    "statistics": Case(partial(between, Statistics), {"0.0": (8, 3), "1.layer": (1, 2), "2": (4, 8)}),
    "lightning": Case(Lightning, {"net.0.0": (4, 3), "net.1.0": (4, 4), "net.2": (4, 4)}),
}  # fmt: skip
