"""A module with a loss, a metric and an optimizer of its own: `module._target_=own_module.LitRegressor`.

It goes with the data beside it: `data._target_=own_data.Waves monitor=val/mean_error`.
"""

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]


class LitRegressor(LightningModule):
    """Predict one number; nothing in it knows of pruning."""

    def __init__(self, width: int = 48, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(
            nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return predictions `(n,)` of inputs `(n, 6)`."""
        predictions: Tensor = self.layers(x)
        return predictions.squeeze(-1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean squared error of a batch."""
        inputs, targets = batch
        return F.mse_loss(self(inputs), targets)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log what `monitor=val/mean_error` asks for."""
        inputs, targets = batch
        self.log("val/mean_error", F.l1_loss(self(inputs), targets), prog_bar=True)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log what the end table shows."""
        inputs, targets = batch
        self.log("test/mean_error", F.l1_loss(self(inputs), targets))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
