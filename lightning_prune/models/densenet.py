"""DenseNet-40 for 32x32 images, whose layers read what all earlier layers of their block wrote."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from lightning_prune.arguments import whole_number
from lightning_prune.models.initialization import initialize_convolutions

_BLOCKS = 3
_LAYERS = 12


class DenseLayer(nn.Module):
    """Append the channels of one 3x3 convolution, which batch norm and ReLU precede, to its input.

    Args:
        in_channels: Channels of the input.
        growth: Channels of the convolution.
    """

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, in_channels + growth, h, w)`."""
        return torch.cat((x, self.conv(self.relu(self.bn(x)))), dim=1)


def densenet40(num_classes: int = 10, in_channels: int = 3, growth: int = 12) -> nn.Module:
    """Build DenseNet-40 for 32x32 images, without bottlenecks and without compression.

    At growth 12 it costs 282.9 M MACs and has 1.06 M parameters, of which the pruning literature counts the 1.04 M
    outside batch norm. As there, the stem has two times `growth` channels; in the paper it has 16.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.
        growth: Channels that each of the 36 dense layers adds, 1 or more.

    Returns:
        A module from images `(n, in_channels, h, w)`, 4x4 or larger, to logits `(n, num_classes)`.

    Raises:
        InputError: If an argument is no whole number of at least 1.

    Reference:
        Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", 2017, arXiv 1608.06993,
        section 3; in the form of Lin et al., "Towards Optimal Structured CNN Pruning via Generative Adversarial
        Learning", 2019, arXiv 1903.09291.
    """
    whole_number("num_classes", num_classes)
    whole_number("in_channels", in_channels)
    whole_number("growth", growth)
    width = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=nn.Conv2d(in_channels, width, 3, padding=1, bias=False))
    for number in range(1, _BLOCKS + 1):
        if number > 1:
            layers[f"transition{number - 1}"] = _transition(width)
        layers[f"block{number}"] = nn.Sequential(*(DenseLayer(width + i * growth, growth) for i in range(_LAYERS)))
        width += _LAYERS * growth
    layers.update(
        bn=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(1),
        fc=nn.Linear(width, num_classes),
    )
    network = nn.Sequential(layers)
    initialize_convolutions(network)
    return network


def _transition(width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width, width, 1, bias=False)
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True), convolution, nn.AvgPool2d(2))
