"""The learning rate finder in front of a training that schedules, prunes, and may be resumed."""

import os
from contextlib import redirect_stderr
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder

from lightning_prune.errors import InputError
from lightning_prune.runs.messages import say


class RateFinder(LearningRateFinder):
    """Find a learning rate before the first step, and let optimizers and their schedules begin with it.

    A training that is resumed has its learning rate already. The module has to have an attribute `lr` or
    `learning_rate` that its `configure_optimizers` reads, as the classifier has.

    Args:
        min_lr: The first learning rate that is tried.
        max_lr: The last.
        num_training_steps: Optimizer steps in between.
        early_stop_threshold: Multiple of the lowest loss at which the search ends; None for never.
    """

    def __init__(
        self,
        min_lr: float = 1e-5,
        max_lr: float = 1.0,
        num_training_steps: int = 100,
        early_stop_threshold: float | None = 4.0,
    ) -> None:
        super().__init__(min_lr, max_lr, num_training_steps, early_stop_threshold=early_stop_threshold)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for it, unless the run is resumed or tries a few batches.

        Raises:
            InputError: If the losses tell none.
        """
        if trainer.ckpt_path is not None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        everyone = trainer.callbacks  # type: ignore[attr-defined]
        trainer.callbacks = [self]  # type: ignore[attr-defined]  # the others are not to hear of a checkpoint now
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # a bar of its own, whatever is told
                super().on_fit_start(trainer, pl_module)
        finally:
            trainer.callbacks = everyone  # type: ignore[attr-defined]
        found = self.optimal_lr
        rate = None if found is None else found.suggestion()
        if found is None or rate is None:
            raise InputError(
                "expected losses from which a learning rate can be read, got too few finite ones; change "
                "callbacks.lr_finder.min_lr, max_lr or num_training_steps"
            )
        # Lightning sets it in optimizers whose schedules go on from another one.
        trainer.strategy.setup_optimizers(trainer)
        say(f"Learning rate: {rate:.3g}, found in {len(found.results['lr'])} steps")
