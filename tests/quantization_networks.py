"""A network with all that quantization has to find, and images for it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Branches(nn.Module):
    """A residual sum in place, a concatenation, two pools, one ReLU module for all, and a head that only trains."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.side = nn.Conv2d(4, 2, 1)
        self.aux = nn.Conv2d(4, 3, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.stem(x)))
        if self.training:
            aux = F.relu(self.aux(x)).mean((2, 3))
        y = self.norm2(self.inner(x))
        y += x
        y = self.relu(y)
        y = torch.cat([F.max_pool2d(y, 2), F.max_pool2d(self.side(y), 2)], dim=1)
        logits: Tensor = self.fc(F.adaptive_avg_pool2d(y, 1).flatten(1))
        return logits + aux if self.training else logits


def branches() -> Branches:
    """Return one in eval mode whose batch norms do something."""
    torch.manual_seed(0)
    network = Branches()
    for norm in (network.norm1, network.norm2):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.uniform_(norm.weight, -1.5, 1.5)
    return network.eval()
