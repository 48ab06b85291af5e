"""For a second training: the optimizer begins with the momentum of the first."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prune.slimming import load_optimizer_state


class InheritedMomentum(Callback):
    """Let the optimizers of a fit begin with what those of an earlier one knew, at the learning rate of this one.

    A checkpoint from which the fit is resumed comes after that, and counts.

    Args:
        states: What is known of each parameter, by name; of a slim model, what
            `lightning_prune.slimming.optimizer_state.slice_optimizer_state` returns.
    """

    def __init__(self, states: Mapping[str, Mapping[str, Any]]) -> None:
        self._states = states

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give them what is known."""
        for optimizer in trainer.optimizers:
            load_optimizer_state(optimizer, pl_module, self._states)
