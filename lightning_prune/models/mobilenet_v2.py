"""MobileNetV2: inverted residuals with linear bottlenecks, for ImageNet and for 32x32 images."""

from torch import Tensor, nn

from lightning_prune.arguments import number, one_of, whole_number
from lightning_prune.models.initialization import initialize_convolutions

# Table 2 of the paper: expansion, channels, blocks.
_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
# Strides of the stem and of each stage's first block.
_IMAGENET_STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)
_CIFAR_STRIDES = (1, 1, 1, 2, 2, 1, 2, 1)


class InvertedResidual(nn.Module):
    """Expand, filter depthwise and project back; add the input where the shape stays.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        expansion: Hidden channels as a multiple of `in_channels`; 1 leaves the expanding convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        expand = [_conv_bn_relu(in_channels, hidden, kernel_size=1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu(hidden, hidden, kernel_size=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, h / stride, w / stride)`."""
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """Classify images with a stem, seven stages of inverted residuals, a 1x1 convolution and a linear layer.

    Parameter names are those of torchvision's network, so that its ImageNet weights load.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.
        width_mult: Factor on every width, which is then rounded to a multiple of 8.
        strides: Stride of the stem and of the seven stages.
        dropout: Probability of dropping a feature before the linear layer.
    """

    def __init__(
        self, num_classes: int, in_channels: int, width_mult: float, strides: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        width = _multiple_of_8(32 * width_mult)
        layers: list[nn.Module] = [_conv_bn_relu(in_channels, width, kernel_size=3, stride=strides[0])]
        for (expansion, channels, blocks), stage_stride in zip(_STAGES, strides[1:], strict=True):
            out_width = _multiple_of_8(channels * width_mult)
            for stride in (stage_stride, *[1] * (blocks - 1)):
                layers.append(InvertedResidual(width, out_width, stride, expansion))
                width = out_width
        # The paper does not thin the last layer with the others: it carries the classes.
        last = _multiple_of_8(1280 * max(1.0, width_mult))
        layers.append(_conv_bn_relu(width, last, kernel_size=1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(n, num_classes)` of images `(n, in_channels, h, w)`."""
        logits: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return logits


def mobilenet_v2(
    num_classes: int = 10, in_channels: int = 3, width_mult: float = 1.0, stem_stride: int = 1
) -> nn.Module:
    """Build MobileNetV2 for 32x32 images (`stem_stride=1`) or for ImageNet (`stem_stride=2`).

    The variant for 32x32 images differs in two strides, those of the stem and of the second stage (24 channels), which
    are 1 instead of 2 (32x32 images then end in 4x4 maps), and has no dropout. The ImageNet network drops 20 % of
    the features before its classifier; with 1000 classes it has 3,504,872 parameters and 300.8 M MACs at 224x224.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.
        width_mult: Factor on every width, which is then rounded to a multiple of 8.
        stem_stride: 1 or 2.

    Returns:
        A module from images `(n, in_channels, h, w)` to logits `(n, num_classes)`.

    Raises:
        InputError: If `stem_stride` is neither 1 nor 2, `width_mult` is not positive, or another argument no whole
            number of at least 1.

    Reference:
        Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, arXiv
        1801.04381, table 2.
    """
    whole_number("num_classes", num_classes)
    whole_number("in_channels", in_channels)
    one_of("stem_stride, 1 for 32x32 images or 2 for ImageNet,", stem_stride, (1, 2))
    number("width_mult", width_mult, "(0, inf)")
    if stem_stride == 2:
        return MobileNetV2(num_classes, in_channels, width_mult, _IMAGENET_STRIDES, dropout=0.2)
    return MobileNetV2(num_classes, in_channels, width_mult, _CIFAR_STRIDES, dropout=0.0)


def _conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    padding = kernel_size // 2
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU6(inplace=True))


def _multiple_of_8(width: float) -> int:
    rounded = max(8, int(width + 4) // 8 * 8)
    # Never more than 10 % below what was asked for.
    return rounded if rounded >= 0.9 * width else rounded + 8
