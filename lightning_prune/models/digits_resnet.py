"""A residual network for 8x8 images, small enough to train in seconds on two cores."""

from torch import nn

from lightning_prune.models.resnet import ResNet


def digits_resnet(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """Build ResNet-8 with projection shortcuts for scikit-learn's 8x8 digits: 0.76 M MACs, 0.08 M parameters."""
    return ResNet((1, 1, 1), num_classes=num_classes, in_channels=in_channels, shortcut="B")
