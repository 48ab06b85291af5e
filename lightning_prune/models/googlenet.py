"""GoogLeNet for 32x32 images: nine inception modules behind one 3x3 convolution."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from lightning_prune.arguments import whole_number
from lightning_prune.models.initialization import initialize_convolutions

# Table 1 of the paper: channels of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection.
_MODULES = {
    "a3": (64, 96, 128, 16, 32, 32),
    "b3": (128, 128, 192, 32, 96, 64),
    "a4": (192, 96, 208, 16, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128),
}


class Inception(nn.Module):
    """Concatenate four branches: 1x1, 3x3 and 5x5 (as two 3x3) behind a reducing 1x1 each, and 1x1 behind a max pool.

    Args:
        in_channels: Channels of the input.
        one: Channels of the 1x1 branch.
        reduce3: Channels between the two convolutions of the 3x3 branch.
        three: Channels of the 3x3 branch.
        reduce5: Channels after the first convolution of the 5x5 branch.
        five: Channels of the 5x5 branch.
        pool: Channels of the pooling branch.
    """

    def __init__(
        self, in_channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.branch1x1 = nn.Sequential(*_conv_bn_relu(in_channels, one, 1))
        self.branch3x3 = nn.Sequential(*_conv_bn_relu(in_channels, reduce3, 1), *_conv_bn_relu(reduce3, three, 3))
        self.branch5x5 = nn.Sequential(
            *_conv_bn_relu(in_channels, reduce5, 1), *_conv_bn_relu(reduce5, five, 3), *_conv_bn_relu(five, five, 3)
        )
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *_conv_bn_relu(in_channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, one + three + five + pool, h, w)`."""
        return torch.cat((self.branch1x1(x), self.branch3x3(x), self.branch5x5(x), self.branch_pool(x)), dim=1)


def googlenet(num_classes: int = 10, in_channels: int = 3) -> nn.Module:
    """Build GoogLeNet for 32x32 images, in the form the pruning literature measures.

    It costs 1.52 G MACs and has 6.17 M parameters, of which the literature counts the 6.15 M outside batch norm. As
    there, its convolutions have a bias, and it has neither auxiliary classifiers nor dropout.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.

    Returns:
        A module from images `(n, in_channels, h, w)` to logits `(n, num_classes)`.

    Raises:
        InputError: If an argument is no whole number of at least 1.

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", 2015, arXiv 1409.4842, table 1, from inception (3a) on; in
        the form of Lin et al., "HRank: Filter Pruning using High-Rank Feature Map", 2020, arXiv 2002.10179.
    """
    whole_number("num_classes", num_classes)
    whole_number("in_channels", in_channels)
    width = 192
    layers: OrderedDict[str, nn.Module] = OrderedDict(pre_layers=nn.Sequential(*_conv_bn_relu(in_channels, width, 3)))
    for name, widths in _MODULES.items():
        if name in ("a4", "a5"):
            layers[f"maxpool{name[1]}"] = nn.MaxPool2d(3, stride=2, padding=1)
        layers[name] = Inception(width, *widths)
        one, _, three, _, five, pool = widths
        width = one + three + five + pool
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(1), linear=nn.Linear(width, num_classes))
    network = nn.Sequential(layers)
    initialize_convolutions(network)
    return network


def _conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
