"""The one weight initialization the convolutional networks share."""

from torch import nn


def initialize_convolutions(network: nn.Module) -> None:
    """Draw every convolution's weight from He's normal distribution over fan-out and zero its bias.

    Args:
        network: Changed in place; linear layers and batch norms keep torch's defaults.

    Reference:
        He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", 2015, arXiv 1502.01852, section 2.2.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
