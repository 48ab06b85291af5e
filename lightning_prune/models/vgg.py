"""VGG-16 with batch norm for 32x32 images."""

from collections import OrderedDict
from typing import Literal

from torch import nn

from lightning_prune.arguments import one_of, whole_number
from lightning_prune.models.initialization import initialize_convolutions

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16_bn(num_classes: int = 10, in_channels: int = 3, head: Literal["linear", "mlp"] = "linear") -> nn.Module:
    """Build VGG-16 with batch norm for 32x32 images, in one of the two forms the pruning literature measures.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.
        head: "linear" ends in one linear layer and its convolutions have no bias (313.2 M MACs, 14.72 M parameters);
            "mlp" ends in two linear layers with batch norm between and its convolutions have one (313.5 M MACs,
            14.99 M parameters).

    Returns:
        A module from images `(n, in_channels, 32, 32)` to logits `(n, num_classes)`.

    Raises:
        InputError: If `head` is neither "linear" nor "mlp", or another argument no whole number of at least 1.

    Reference:
        Simonyan, Zisserman, 2015, arXiv 1409.1556, configuration D. The "linear" form is that of Liu et al., "Learning
        Efficient Convolutional Networks through Network Slimming", 2017, arXiv 1708.06519; the "mlp" form that of Lin
        et al., "Towards Optimal Structured CNN Pruning via Generative Adversarial Learning", 2019, arXiv 1903.09291.
    """
    whole_number("num_classes", num_classes)
    whole_number("in_channels", in_channels)
    one_of("head", head, ("linear", "mlp"))
    width = _STAGES[-1][-1]
    classifier: nn.Module = nn.Linear(width, num_classes)
    if head == "mlp":
        hidden = (nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True))
        classifier = nn.Sequential(*hidden, classifier)
    network = nn.Sequential(
        OrderedDict(
            features=_features(in_channels, bias=head == "mlp"),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(1),
            classifier=classifier,
        )
    )
    initialize_convolutions(network)
    return network


def _features(in_channels: int, bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for stage in _STAGES:
        # Between stages only: the last stage's 2x2 maps go to the average pool.
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in stage:
            convolution = nn.Conv2d(in_channels, width, 3, padding=1, bias=bias)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            in_channels = width
    return nn.Sequential(*layers)
