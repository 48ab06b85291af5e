"""Slim models give the outputs of the masked ones and are really smaller, whatever the model is built of."""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from lightning_prune.coupling import Group, couple
from lightning_prune.errors import InputError
from lightning_prune.models.mobilenet_v2 import mobilenet_v2
from lightning_prune.models.resnet import ResNet, resnet20
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.slim_files import load_slim, save_slim
from lightning_prune.slimming import slim

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


@torch.no_grad()
def mask(model: nn.Module, groups: list[Group], fraction: float = 0.5) -> None:
    """Zero a random fraction of each group's units, rounded down, in all that belongs to them."""
    parameters = dict(model.named_parameters())
    for group in groups:
        units = torch.randperm(group.size)[: int(fraction * group.size)]
        for member in group.members:
            if member.role not in ("reader", "other"):
                parameters[member.name].index_fill_(member.dim, member.index[units].reshape(-1), 0)


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# The models -----------------------------------------------------------------------------------------------------------


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
    """A model, inputs, and the shape that weights have once half of each group is gone, worked out by hand."""

    build: Callable[[], nn.Module]
    expected: dict[str, tuple[int, int]]
    inputs: Callable[[], Inputs] = IMAGE


CASES = {
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
        {"features.0": (32, 3), "features.40": (256, 256), "classifier.0": (512, 256)},
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
    "se-linear": Case(linear_squeeze_excite, {"stem.0": (8, 3), "gate.0": (4, 8), "gate.2": (8, 4), "last": (6, 8)}),
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
        {"image.0": (4, 3), "table": (6, 4), "one": (3, 10), "other": (2, 4)},
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
    "mixer": Case(mixer, {"patches": (4, 3), "tokens1": (6, 4), "channels": (6, 4)}),
    "flattened": Case(flattened, {"0.0": (4, 3), "4": (5, 16)}),
    "blur-pool": Case(blur_pool, {"stem.0": (4, 3), "last": (4, 4)}),
    "compiled": Case(compiled_part, {"0.0": (4, 3), "1._orig_mod.0": (4, 4), "2": (4, 4)}),
}


@dataclass(frozen=True)
class Slimmed:
    """A model, what it was before `slim`, and what `slim` made of it."""

    case: Case
    inputs: Inputs
    model: nn.Module
    before: nn.Module
    small: nn.Module
    log: str


@pytest.fixture(params=CASES, scope="module")
def slimmed(request) -> Slimmed:
    torch.manual_seed(0)
    case = CASES[request.param]
    model, inputs = randomise(case.build()), case.inputs()
    mask(model, couple(model, inputs).groups())
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 0
    before = copy.deepcopy(model)
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("lightning_prune").addHandler(handler)
    small = slim(model, inputs)
    logging.getLogger("lightning_prune").removeHandler(handler)
    return Slimmed(case, inputs, model, before, small, " ".join(records))


def test_slim_model_gives_the_same_outputs(slimmed):
    assert difference(slimmed.model, slimmed.small, slimmed.inputs) < 1e-5
    assert "relies on" not in slimmed.log  # found by analysis, not by trying what works


def test_slim_model_is_smaller(slimmed):
    found = shapes(slimmed.small)
    for name, shape in slimmed.case.expected.items():
        assert found.get(f"{name}.weight", found.get(name))[: len(shape)] == shape, name


def test_slim_model_survives_a_file(slimmed, tmp_path):
    save_slim(slimmed.small, tmp_path / "slim.pt")
    torch.load(tmp_path / "slim.pt", weights_only=True)
    loaded = load_slim(slimmed.case.build(), tmp_path / "slim.pt")
    assert str(loaded) == str(slimmed.small)  # the widths that modules state
    for mine, theirs in zip(outputs(loaded, slimmed.inputs), outputs(slimmed.small, slimmed.inputs), strict=True):
        assert torch.equal(mine, theirs)


def test_slim_model_trains(slimmed):
    small = copy.deepcopy(slimmed.small)
    with torch.compiler.set_stance("force_eager"):
        sum(out.square().sum() for out in tree_leaves(small(*as_tuple(slimmed.inputs)))).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in small.parameters())
    modes = [module.training for module in slimmed.before.modules()]
    assert [module.training for module in slimmed.small.modules()] == modes


def test_original_is_untouched(slimmed):
    model, before = slimmed.model, slimmed.before
    assert str(model) == str(before)
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    ours, theirs = ({**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (model, before))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    mine = {tensor.data_ptr() for tensor in slimmed.small.parameters()}
    assert mine.isdisjoint(parameter.data_ptr() for parameter in model.parameters())


# Operators that cannot be followed ------------------------------------------------------------------------------------


def attention(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)


FIXED = {
    "softmax": lambda x: x.softmax(1),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2),
    "group norm": lambda x: F.group_norm(x, 2),
    "matmul": lambda x: (torch.ones(8, 8) @ x.flatten(2)).view(x.shape),
    "attention": attention,
    "sort": lambda x: x.sort(dim=1).values,
    "cumsum": lambda x: x.cumsum(1),
    "local response norm": lambda x: F.local_response_norm(x, 3),
    "mean over channels": lambda x: x * x.mean(1, keepdim=True),
    "max over channels": lambda x: x - x.max(1, keepdim=True)[0],
    "unit length": lambda x: F.normalize(x, dim=1),
    "roll": lambda x: x.roll(1, dims=1),
    "shift": lambda x: F.pad(x, (0, 0, 0, 0, -1, 1)),
    "flip": lambda x: x.flip(1),
    "slice": lambda x: torch.cat([x[:, 5:], x[:, :5]], 1),
    "select": lambda x: x + x[:, :1],
    "split": lambda x: torch.cat(torch.split(x, [3, 5], dim=1)[::-1], 1),
    "indices": lambda x: x[:, [7, 0, 1, 2, 3, 4, 5, 6]],
    "einsum": lambda x: torch.einsum("nchw,dc->ndhw", x, torch.ones(8, 8)),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1)[:, :, ::2, ::2],
    "position in channel": lambda x: x + torch.arange(8.0).view(8, 1, 1),
    "convolution over channels": lambda x: F.conv1d(x.flatten(2).transpose(1, 2), torch.ones(64, 64, 1)).view(x.shape),
    "pooling over channels": lambda x: F.avg_pool1d(x.flatten(2).mT, 3, 1, 1).mT.reshape(x.shape),
    "reflection over channels": lambda x: F.pad(x.flatten(2).mT, (1, 0), mode="reflect")[..., :8].mT.reshape(x.shape),
    "written to": lambda x: x.index_fill(1, torch.tensor([1]), 2.0),
}


@pytest.mark.parametrize("name", FIXED)
def test_channels_that_cannot_be_followed_stay_and_the_rest_goes(name):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.third(FIXED[name](net.second(F.relu(net.first(x)))))))

    model = Net(forward, first=conv(3, 8), second=conv(8, 8), third=conv(8, 8), last=conv(8, 4))
    inputs = IMAGE()
    groups = couple(model, inputs).groups()
    assert [group.layers for group in groups] == [["first"], ["third"]]
    mask(model, groups)
    with torch.no_grad():
        model.second.weight[2] = 0
        model.second.bias[2] = 0
    small = slim(model, inputs)
    assert difference(model, small, inputs) < 1e-5
    widths = {name: shape[:2] for name, shape in shapes(small).items() if name.endswith("weight")}
    assert widths == {"first.weight": (4, 3), "second.weight": (8, 4), "third.weight": (4, 8), "last.weight": (4, 4)}


# Code that relies on widths -------------------------------------------------------------------------------------------


RELYING = {
    "view": lambda net, x: x.view(len(x), 8, 64).view(x.shape),
    "groups": lambda net, x: F.conv2d(x, net.depthwise, groups=8),
    # With half of the channels this runs, and gives something else.
    "shuffle": lambda net, x: x.view(len(x), x.shape[1] // 4, 4, 8, 8).transpose(1, 2).reshape(x.shape),
    "padding": lambda net, x: F.pad(x, (0, 0, 0, 0, 0, 12 - x.shape[1]))[:, :8],
    "assertion": lambda net, x: x if x.shape[1] == 8 else x[:0],
}


@pytest.mark.parametrize("name", RELYING)
def test_code_that_relies_on_a_width_keeps_it(name):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.after(RELYING[name](net, F.relu(net.mid(F.relu(net.first(x))))))))

    model = Net(
        forward, first=conv(3, 8), mid=conv(8, 8), after=conv(8, 8), last=conv(8, 4),
        depthwise=nn.Parameter(torch.randn(8, 1, 1, 1)),
    )  # fmt: skip
    inputs = IMAGE()
    with torch.no_grad():
        for layer in (model.first, model.mid, model.after):
            for tensor in (layer.weight, layer.bias):
                tensor[[2, 3, 6, 7]] = 0
        model.depthwise[[2, 3, 6, 7]] = 0
    small = slim(model, inputs)
    assert difference(model, small, inputs) < 1e-5
    widths = [shapes(small)[f"{name}.weight"][0] for name in ("first", "mid", "after", "last")]
    assert widths == [4, 8, 4, 4]


def test_code_that_relies_on_a_width_is_named_in_the_log(caplog):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head(net.features(x).view(-1, 8 * 64))

    model = Net(forward, features=nn.Sequential(conv_bn(3, 8), conv_bn(8, 8)), head=nn.Linear(512, 3))
    inputs = IMAGE()
    mask(model, couple(model, inputs).groups())
    with caplog.at_level(logging.WARNING, "lightning_prune"):
        small = slim(model, inputs)
    assert "kept the masked channels of features.1.0.weight" in caplog.text
    assert shapes(small)["features.1.0.weight"] == (8, 4, 3, 3)


# What is dead and what is not -----------------------------------------------------------------------------------------


def test_filter_without_its_shift_is_not_dead():
    # gamma 0.8, beta 0.05, mean -0.5 and variance 0.5 make 0.05 + 0.8 * 0.5 / sqrt(0.50001) = 0.61568 of a zero filter.
    model = nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4, bias=False)).eval()
    norm = model[1]
    with torch.no_grad():
        model[0].weight[5] = 0
        norm.weight[5], norm.bias[5], norm.running_mean[5], norm.running_var[5] = 0.8, 0.05, -0.5, 0.5
    inputs = IMAGE()
    with torch.no_grad():
        assert torch.allclose(model[:3](inputs)[:, 5], torch.tensor(0.61568), atol=1e-5)
    small = slim(model, inputs)
    assert shapes(small)["0.weight"][0] == 8
    assert difference(model, small, inputs) == 0
    with torch.no_grad():
        norm.weight[5] = norm.bias[5] = 0
    small = slim(model, inputs)
    assert shapes(small)["0.weight"][0] == 7
    assert difference(model, small, inputs) < 1e-6


@pytest.mark.parametrize("rest", ["bias", "shift", "next column", "scale"])
def test_what_keeps_a_zero_filter_alive(rest):
    model = randomise(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4)))
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
            tensor[5] = 0
        if rest == "bias":
            model[0].bias[5] = 1.0  # times a scale of zero
        if rest == "shift":
            model[1].bias[5] = 1.0
        if rest == "scale":
            model[1].weight[5] = 1.0  # of what is zero minus the running mean
        if rest == "next column":
            model[0].weight[5] = model[1].weight[5] = model[1].bias[5] = 1.0
            model[3].weight[:, 5] = 0  # nobody reads it
    small = slim(model, IMAGE())
    assert shapes(small)["0.weight"][0] == {"bias": 7, "shift": 8, "scale": 8, "next column": 7}[rest]
    assert difference(model, small, IMAGE()) < 1e-6


def test_masked_filter_behind_a_batch_norm_without_affine_map_goes_when_its_mean_is_zero():
    model = nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(), conv(8, 4))
    model[1].running_mean.normal_()
    with torch.no_grad():
        model[0].weight[[1, 2]] = 0
    model[1].running_mean[2] = 0
    small = slim(model, IMAGE())
    assert shapes(small)["1.running_mean"] == (7,)
    assert small[1].num_features == 7
    assert difference(model, small, IMAGE()) < 1e-6


def test_depthwise_filter_that_is_zero_does_not_read_its_channel():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), conv(8, 4))
    with torch.no_grad():
        model[2].weight[3] = model[2].bias[3] = 0
    small = slim(model, IMAGE())
    assert (shapes(small)["0.weight"][0], small[2].groups) == (7, 7)
    assert difference(model, small, IMAGE()) < 1e-5


def test_zero_channel_that_is_written_to_through_a_view_is_alive(caplog):
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.first(x)
        part = x[:, :, 1:].flatten(2, 2)
        part += 1.0
        return net.last(x)

    model = Net(forward, first=conv(3, 8), last=conv(8, 4))
    mask(model, couple(model, IMAGE()).groups())
    small = slim(model, IMAGE())
    assert shapes(small)["first.weight"][0] == 8
    assert "relies on" not in caplog.text
    assert difference(model, small, IMAGE()) == 0


def test_index_buffer_that_chooses_from_two_tensors():
    def forward(net: Net, x: Tensor) -> Tensor:
        a, b = net.a(x), net.b(x)
        return net.last(a.index_select(1, net.index) + b.index_select(1, net.index)) + net.all_of_a(a)

    model = Net(forward, a=conv(3, 6), b=conv(3, 6), all_of_a=conv(6, 4), last=conv(3, 4))
    model.register_buffer("index", torch.tensor([1, 3, 4]))
    with torch.no_grad():
        for channels, layer in (([0, 3], model.a), ([3], model.b)):
            layer.weight[channels] = 0
            layer.bias[channels] = 0
    small = slim(model, IMAGE())
    assert difference(model, small, IMAGE()) < 1e-5
    assert [shapes(small)[name][0] for name in ("a.weight", "b.weight", "index")] == [4, 4, 2]
    assert small.index.tolist() == [0, 2]


def test_stream_channel_lives_as_long_as_one_layer_writes_to_it():
    model = randomise(resnet20(shortcut="B"))
    stream = [(model.conv1, model.bn1)] + [(block.conv2, block.bn2) for block in model.layer1]
    inputs = IMAGE()
    with torch.no_grad():
        for layer, norm in stream[:-1]:
            layer.weight[3] = norm.weight[3] = norm.bias[3] = 0
        assert shapes(slim(model, inputs))["conv1.weight"][0] == 16
        layer, norm = stream[-1]
        layer.weight[3] = norm.weight[3] = norm.bias[3] = 0
    small = slim(model, inputs)
    assert shapes(small)["conv1.weight"][0] == 15
    assert difference(model, small, inputs) < 1e-5


def test_padded_shortcut_reads_the_right_channels_after_slimming():
    model = randomise(resnet20())
    inputs = IMAGE()
    streams = {
        # Channel i of 16 is i + 8 of 32 and i + 24 of 64; what faces padding has no source.
        (0, 5): [(model.conv1, model.bn1)] + [(block.conv2, block.bn2) for block in model.layer1],
        (8, 13, 2): [(block.conv2, block.bn2) for block in model.layer2],
        (24, 29, 18, 60): [(block.conv2, block.bn2) for block in model.layer3],
    }
    with torch.no_grad():
        for channels, layers in streams.items():
            for layer, norm in layers:
                layer.weight[list(channels)] = 0
                norm.weight[list(channels)] = norm.bias[list(channels)] = 0
    small = slim(model, inputs)
    widths = [shapes(small)[f"{name}.weight"][0] for name in ("conv1", "layer2.0.conv2", "layer3.0.conv2")]
    assert widths == [14, 29, 60]
    # 1, 2, 3, 4, 6, ... are now 0, 1, 2, 3, 4, ...; 14 is the zero channel. Seven edges are left before, eight behind.
    assert small.layer2[0].downsample.source.tolist() == [14] * 7 + [*range(14)] + [14] * 8
    assert difference(model, small, inputs) < 1e-5


def test_hidden_units_of_linear_layers_go():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 12), nn.GELU(), nn.Linear(12, 3))
    with torch.no_grad():
        model[1].weight[:7] = 0
        model[1].bias[:7] = 0
        model[5].weight[:, 2:5] = 0
    small = slim(model, IMAGE())
    assert [tuple(layer.weight.shape) for layer in (small[1], small[3], small[5])] == [(13, 192), (9, 13), (3, 9)]
    assert (small[3].in_features, small[3].out_features) == (13, 9)
    assert difference(model, small, IMAGE()) < 1e-5


def test_hidden_units_of_a_transformer_go():
    model = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    with torch.no_grad():
        model.linear1.weight[3:9] = 0
        model.linear1.bias[3:9] = 0
    inputs = torch.randn(2, 5, 8)
    small = slim(model, inputs)
    assert shapes(small)["linear1.weight"] == (10, 8)
    assert difference(model, small, inputs) < 1e-5


def test_one_channel_stays_where_all_are_masked():
    model = randomise(nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), conv(8, 4)))
    for parameter in model[1].parameters():
        nn.init.zeros_(parameter)
    small = slim(model, IMAGE())
    # The layer before goes down to one channel too, because nothing reads the others.
    assert [shapes(small)[name][:2] for name in ("0.0.weight", "1.0.weight", "2.weight")] == [(1, 3), (1, 1), (4, 1)]
    assert difference(model, small, IMAGE()) < 1e-6


def test_model_of_zeros_keeps_one_channel_everywhere():
    model = resnet20()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    small = slim(model, IMAGE())
    assert all(min(shape, default=1) >= 1 for shape in shapes(small).values())
    assert small(IMAGE()).shape == (2, 10)


# Inputs, formats and states -------------------------------------------------------------------------------------------


def masked_resnet(fraction: float = 0.5) -> nn.Module:
    model = randomise(ResNet((1, 1, 1), (8, 16, 32), shortcut="B"))
    mask(model, couple(model, IMAGE()).groups(), fraction)
    return model


@pytest.mark.parametrize("example", [torch.zeros(2, 3, 8, 8), torch.randn(1, 3, 8, 8), torch.randn(3, 3, 16, 16)])
def test_any_example_input_serves(example):
    model = masked_resnet()
    small = slim(model, example)
    assert shapes(small)["layer3.0.conv2.weight"] == (16, 16, 3, 3)
    assert difference(model, small, torch.randn(4, 3, 12, 12)) < 1e-5


def test_example_input_for_which_outputs_are_nan_serves():
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.first(x / x.norm())))

    model = Net(forward, first=conv(3, 8), last=conv(8, 4))
    mask(model, couple(model, IMAGE()).groups())
    small = slim(model, torch.zeros(2, 3, 8, 8))
    assert shapes(small)["first.weight"][0] == 4
    assert difference(model, small, IMAGE()) < 1e-5


def test_training_mode_and_random_state_stay():
    model = nn.Sequential(conv_bn(3, 8), nn.Dropout(0.5), conv(8, 4)).train()
    mask(model, couple(model, IMAGE()).groups())
    inputs = IMAGE()
    state = torch.get_rng_state()
    small = slim(model, inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert small.training
    assert small[1].training
    assert difference(model, small, IMAGE()) < 1e-5


def test_slim_model_stays_as_it_is():
    small = slim(masked_resnet(), IMAGE())
    again = slim(small, IMAGE())
    assert shapes(again) == shapes(small)
    assert difference(small, again, IMAGE()) == 0


def test_dense_model_stays_as_it_is():
    model = randomise(resnet20())
    small = slim(model, IMAGE())
    assert shapes(small) == shapes(model)
    assert difference(model, small, IMAGE()) == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.1)])
def test_number_formats(dtype, tolerance):
    model = masked_resnet().to(dtype)
    small = slim(model, IMAGE(dtype=dtype))
    assert shapes(small)["layer3.0.conv2.weight"] == (16, 16, 3, 3)
    assert {tensor.dtype for tensor in small.parameters()} == {dtype}
    assert difference(model, small, IMAGE(dtype=dtype)) < tolerance


def test_outputs_of_any_kind_are_compared():
    def forward(net: Net, x: Tensor) -> dict[str, object]:
        logits = net.last(F.relu(net.first(x)))
        limited = logits.masked_fill(logits > 0, float("-inf"))
        return {"class": logits.argmax(1), "sure": logits > 0, "limited": limited, "none": None, "number": 3}

    model = Net(forward, first=conv(3, 8), last=conv(8, 4))
    mask(model, couple(model, IMAGE()).groups())
    assert shapes(slim(model, IMAGE()))["first.weight"][0] == 4


def test_frozen_parameters_stay_frozen():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 4))
    model[0].weight.requires_grad_(False)
    mask(model, couple(model, IMAGE()).groups())
    small = slim(model, IMAGE())
    assert [parameter.requires_grad for parameter in small.parameters()] == [False, True, True, True]
    assert isinstance(small[0].weight, nn.Parameter)


class Rounded(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight * 16).round() / 16


def test_parametrized_weights_are_cut_where_they_are_stored():
    model = randomise(nn.Sequential(conv_bn(3, 8), conv_bn(8, 8, groups=8), conv(8, 4)))
    for layer in (model[0][0], model[1][0]):
        nn.utils.parametrize.register_parametrization(layer, "weight", Rounded())
    groups = couple(model, IMAGE()).groups()
    assert [group.layers for group in groups] == [["0.0", "1.0"]]
    mask(model, groups)
    small = slim(model, IMAGE())
    assert shapes(small)["1.0.parametrizations.weight.original"] == (4, 1, 3, 3)
    assert difference(model, small, IMAGE()) < 1e-5


def test_masks_of_torch_prune_are_understood():
    model = randomise(nn.Sequential(conv_bn(3, 8), conv(8, 4)))
    nn.utils.prune.ln_structured(model[0][0], "weight", amount=4, n=2, dim=0)
    gone = ~model[0][0].weight_mask.bool().flatten(1).any(1)
    with torch.no_grad():
        model[0][1].weight[gone] = model[0][1].bias[gone] = 0
    small = slim(model, IMAGE())
    assert shapes(small)["0.0.weight_orig"] == (4, 3, 3, 3)
    with torch.no_grad():
        assert torch.allclose(small.eval()(IMAGE()) * 0 + 1, torch.ones(2, 4, 8, 8))


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "layer2.0.bn1", "fc"])
def test_diverged_weights_are_refused(layer):
    model = masked_resnet()
    with torch.no_grad():
        model.get_submodule(layer).weight[-1] = float("nan")
    with pytest.raises(InputError, match="finite outputs, got NaN"):
        slim(model, IMAGE())


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.zeros(2, 4, 8, 8), r"ResNet.forward to be traceable .* shape \(2, 4, 8, 8\)"),
        ([torch.zeros(2, 3, 8, 8)], "a tensor or a tuple of tensors, got list"),
        ((torch.zeros(2, 3, 8, 8), 1), "got Tensor, int"),
        ((), "got an empty tuple"),
    ],
)
def test_wrong_example_input_is_refused(example, message):
    with pytest.raises(InputError, match=message) as error:
        slim(ResNet((1, 1, 1)), example)
    assert "\n" not in str(error.value)


def test_model_without_parameters_is_refused():
    with pytest.raises(InputError, match="a model with parameters, got ReLU without any"):
        slim(nn.ReLU(), IMAGE())


def test_control_flow_on_values_is_refused():
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.layer(x) if x.sum() > 0 else x

    with pytest.raises(InputError, match=r"Net\.forward to be traceable"):
        slim(Net(forward, layer=conv(3, 3)), IMAGE())
