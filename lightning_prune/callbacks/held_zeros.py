"""For the training that follows on pruning: what is zero stays zero."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.granularities.element import Element


class HeldZeros(Pruner):
    """Hold every single weight at zero that is exactly zero when training starts.

    A slim model has none where channels were pruned, and all that is left of the pruning where single weights were.
    """

    def __init__(self) -> None:
        super().__init__(Element(), None)

    @property
    def is_final(self) -> bool:
        """Always: nothing more is removed."""
        return True

    @property
    def final_epoch(self) -> float | None:
        """At once."""
        return 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the zeros are, unless a checkpoint knows it."""
        super().on_fit_start(trainer, pl_module)
        if self._held is None:
            masks = {name: weight.detach() != 0 for name, weight in pl_module.named_parameters()}
            self._hold(trainer, pl_module, {name: mask for name, mask in masks.items() if not mask.all()})

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is to be done."""

    def _find(self, pl_module: LightningModule, arguments: tuple[Tensor, ...] | None) -> bool:
        return True
