"""For the training that follows on pruning: what is zero stays zero."""

from collections.abc import Mapping

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.pruning import nonzeros
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.slimming import TracedModel


class HeldZeros(Pruner):
    """Hold every single weight at zero that is exactly zero when training starts, or where it is told.

    A slim model has none where channels were pruned, and all that is left of the pruning where single weights were.

    Args:
        masks: What `lightning_prune.pruning.nonzeros` has found in another model of the same shapes; None for the
            module as training starts.
    """

    def __init__(self, masks: Mapping[str, Tensor] | None = None) -> None:
        self._masks = masks
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
            self._hold(trainer, pl_module, nonzeros(pl_module) if self._masks is None else self._masks)

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing is to be done."""

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        return True
