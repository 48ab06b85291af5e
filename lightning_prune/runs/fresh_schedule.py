"""A learning rate schedule that begins within a run."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class FreshSchedule(Callback):
    """Let a resumed run take learning rates and their schedule from the module, not from a checkpoint.

    Args:
        steps: Optimizer steps of the run when the schedule begins; later checkpoints know it.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._checkpoint: dict[str, Any] | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave the old schedule out, if the checkpoint is from before the new one."""
        if checkpoint["global_step"] <= self.steps:
            checkpoint["lr_schedulers"] = []
            self._checkpoint = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the state of the optimizers, which is loaded next, the learning rates with which they were built."""
        if self._checkpoint is None:
            return
        for optimizer, saved in zip(trainer.optimizers, self._checkpoint["optimizer_states"], strict=True):
            for group, old in zip(optimizer.param_groups, saved["param_groups"], strict=True):
                old.update({key: group[key] for key in ("lr", "initial_lr") if key in group})
        self._checkpoint = None
