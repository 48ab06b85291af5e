"""Layers on a weight in torch's semi-structured layout."""

from torch import Tensor, nn
from torch.nn import functional as F


class SparseLinear(nn.Module):
    """Run a linear layer on a weight in torch's semi-structured layout; it does not train.

    Args:
        weight: `(out_features, in_features)` in that layout.
        bias: `(out_features,)` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        return F.linear(x.contiguous(), self.weight, self.bias)


class SparsePointwise(SparseLinear):
    """Run a 1x1 convolution as a linear layer over the channels; it costs no copy where these are stored last.

    Args:
        weight: `(out_channels, in_channels)` in torch's semi-structured layout.
        bias: `(out_channels,)` or None.
        stride: Every how many rows and columns one pixel is read.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> None:
        super().__init__(weight, bias)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map `(n, in_channels, h, w)` to `(n, out_channels, h / stride, w / stride)`."""
        pixels = x[..., :: self.stride[0], :: self.stride[1]].movedim(-3, -1)
        return super().forward(pixels).movedim(-1, -3)
