"""A network of one's own: `lightning-prune train model._target_=own_network.Net model.width=24 strategy=sfp`."""

from torch import Tensor, nn


class Net(nn.Module):
    """Classify small images; classes and channels are filled in by the data, whatever a constructor calls them."""

    def __init__(self, width: int = 32, num_labels: int = 10, in_chans: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, num_labels)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(n, num_labels)` of images `(n, in_chans, h, w)`."""
        x = self.stem(x)
        logits: Tensor = self.head((x + self.body(x)).mean(dim=(2, 3)))
        return logits
