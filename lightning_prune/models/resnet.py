"""Residual networks for small images: three stages of basic blocks, at full, half and quarter resolution."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.arguments import items, one_of, whole_number
from lightning_prune.errors import InputError
from lightning_prune.models.initialization import initialize_convolutions

Shortcut = Literal["A", "B"]


class PaddedShortcut(nn.Module):
    """Subsample and add zero channels on both sides: the parameter-free shortcut, option A.

    Input channel `i` lands on output channel `i + (out_channels - in_channels) // 2`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least `in_channels`.
        stride: Every how many rows and columns one pixel is kept.

    Raises:
        InputError: If `out_channels` is below `in_channels`.

    Reference:
        He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016, arXiv 1512.03385, section 4.2.
    """

    source: Tensor

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise InputError(f"expected out_channels >= {in_channels} (in_channels) for shortcut A, got {out_channels}")
        self.stride = stride
        # Which input channel each output channel reads; `in_channels` is the one zero channel that forward appends.
        # The placement is data (a buffer) and not a constant in code, so that slimming can rewrite it when channels
        # of either side are removed: for the same reason nothing in forward depends on a width.
        first = (out_channels - in_channels) // 2
        # Floats, because weight averaging truncates the averages of integers: 0.9999 * 11 + 0.0001 * 11 becomes 10.
        source = torch.full((out_channels,), float(in_channels))
        source[first : first + in_channels] = torch.arange(in_channels)
        self.register_buffer("source", source)

    def forward(self, x: Tensor) -> Tensor:
        """Place the channels of `x`, `(n, in_channels, h, w)`, among zeros: `(n, out_channels, h', w')`."""
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, 0, 1)).index_select(1, self.source.long())


class BasicBlock(nn.Module):
    """Add two 3x3 convolutions with batch norm to a shortcut of their input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions.
        stride: Stride of the first convolution and of the shortcut.
        shortcut: What carries the input across a change of shape: "A" pads with zeros, "B" projects (1x1 convolution
            and batch norm). Where the shape stays, the shortcut is the identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.downsample = nn.Identity()
        elif shortcut == "A":
            self.downsample = PaddedShortcut(in_channels, out_channels, stride)
        else:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, h / stride, w / stride)`."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        out: Tensor = self.relu(residual + self.downsample(x))
        return out


class ResNet(nn.Module):
    """Classify images with a 3x3 stem, three stages of basic blocks and one linear layer.

    The first stage keeps the input's resolution, each later one halves it.

    Args:
        blocks: Basic blocks of each stage.
        widths: Channels of each stage; the stem has as many as the first.
        num_classes: Length of the output.
        in_channels: Channels of the input image.
        shortcut: "A" (parameter-free) or "B" (projection) where the shape changes.

    Raises:
        InputError: If `shortcut` is neither "A" nor "B", or another argument no whole number of at least 1.

    Reference:
        He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2016, arXiv 1512.03385, section 4.2.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int],
        widths: tuple[int, int, int] = (16, 32, 64),
        num_classes: int = 10,
        in_channels: int = 3,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__()
        for name, sizes in (("blocks", blocks), ("widths", widths)):
            if len(items(name, sizes, "three numbers")) != 3:
                raise InputError(f"expected {name} of three stages, got {len(sizes)}")
            for size in sizes:
                whole_number(f"each number in {name}", size)
        whole_number("num_classes", num_classes)
        whole_number("in_channels", in_channels)
        one_of("shortcut, zero-padded or a projection,", shortcut, ("A", "B"))
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(blocks[0], widths[0], widths[0], 1, shortcut)
        self.layer2 = _stage(blocks[1], widths[0], widths[1], 2, shortcut)
        self.layer3 = _stage(blocks[2], widths[1], widths[2], 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        initialize_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(n, num_classes)` of images `(n, in_channels, h, w)`."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1, shortcut) for _ in range(blocks - 1)))


def resnet20(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> nn.Module:
    """Build ResNet-20 for 32x32 images: 40.6 M MACs, 0.27 M parameters."""
    return ResNet((3, 3, 3), num_classes=num_classes, in_channels=in_channels, shortcut=shortcut)


def resnet32(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> nn.Module:
    """Build ResNet-32 for 32x32 images: 68.9 M MACs, 0.46 M parameters."""
    return ResNet((5, 5, 5), num_classes=num_classes, in_channels=in_channels, shortcut=shortcut)


def resnet44(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> nn.Module:
    """Build ResNet-44 for 32x32 images: 97.2 M MACs, 0.66 M parameters."""
    return ResNet((7, 7, 7), num_classes=num_classes, in_channels=in_channels, shortcut=shortcut)


def resnet56(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> nn.Module:
    """Build ResNet-56 for 32x32 images: 125.5 M MACs, 0.85 M parameters."""
    return ResNet((9, 9, 9), num_classes=num_classes, in_channels=in_channels, shortcut=shortcut)


def resnet110(num_classes: int = 10, in_channels: int = 3, shortcut: Shortcut = "A") -> nn.Module:
    """Build ResNet-110 for 32x32 images: 252.9 M MACs, 1.73 M parameters."""
    return ResNet((18, 18, 18), num_classes=num_classes, in_channels=in_channels, shortcut=shortcut)
