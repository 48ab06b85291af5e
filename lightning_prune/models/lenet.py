"""The two LeNets of Deep Compression, for 28x28 images."""

from collections import OrderedDict

from torch import nn

from lightning_prune.arguments import whole_number

_SIZE = 28


def lenet_300_100(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """Build LeNet-300-100: three linear layers with ReLU between.

    For one channel and ten classes it has 266,200 weights and 410 biases.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.

    Returns:
        A module from images `(n, in_channels, 28, 28)` to logits `(n, num_classes)`.

    Raises:
        InputError: If an argument is no whole number of at least 1.

    Reference:
        LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    whole_number("num_classes", num_classes)
    whole_number("in_channels", in_channels)
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(1),
            fc1=nn.Linear(in_channels * _SIZE**2, 300),
            relu1=nn.ReLU(inplace=True),
            fc2=nn.Linear(300, 100),
            relu2=nn.ReLU(inplace=True),
            fc3=nn.Linear(100, num_classes),
        )
    )


def lenet_5(num_classes: int = 10, in_channels: int = 1) -> nn.Module:
    """Build LeNet-5 in the form that comes with Caffe, in which the convolutions have no activation but the pooling.

    For one channel and ten classes it has 430,500 weights and 580 biases.

    Args:
        num_classes: Length of the output.
        in_channels: Channels of the input image.

    Returns:
        A module from images `(n, in_channels, 28, 28)` to logits `(n, num_classes)`.

    Raises:
        InputError: If an argument is no whole number of at least 1.

    Reference:
        LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998; the widths are
        those of Caffe's `examples/mnist/lenet.prototxt`, which the pruning literature measures.
    """
    whole_number("num_classes", num_classes)
    whole_number("in_channels", in_channels)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, 20, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(1),
            fc1=nn.Linear(50 * 4 * 4, 500),
            relu=nn.ReLU(inplace=True),
            fc2=nn.Linear(500, num_classes),
        )
    )
