"""A callback of one's own: `callbacks.norms._target_=own_callback.LogNorm`."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class LogNorm(Callback):
    """Log the norm of all weights at the end of every epoch."""

    def __init__(self, name: str = "weights/norm") -> None:
        self.name = name

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log it beside everything else."""
        norms = [parameter.detach().norm() for parameter in pl_module.parameters()]
        pl_module.log(self.name, torch.stack(norms).norm())
