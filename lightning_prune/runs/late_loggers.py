"""Loggers that begin when training does, so that a run that is refused leaves nothing with them."""

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from lightning_prune.errors import InputError
from lightning_prune.runs.messages import first_line, quiet_wandb, say


class LateLoggers(Callback):
    """Give a Trainer its loggers once training begins; Lightning would begin their runs before anything is set up.

    Args:
        loggers: Those of the run.
        settings: What they note of it.
    """

    def __init__(self, loggers: Sequence[Logger], settings: Mapping[str, Any]) -> None:
        self.loggers, self._settings = list(loggers), settings
        self._begun: list[Logger] = []

    def placeholders(self) -> list[Logger]:
        """Return what stands in a Trainer until then."""
        return [DummyLogger() for _ in self.loggers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the loggers in their places, and note the settings; a run of a few batches to try things has none."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from another class
            return
        trainer.loggers = list(self.loggers)
        for logger in self.loggers:
            try:
                with quiet_wandb() if isinstance(logger, WandbLogger) else nullcontext():
                    logger.log_hyperparams(dict(self._settings))
            except Exception as error:
                raise InputError(f"logger: {type(logger).__name__} does not begin: {first_line(error)}") from error
            self._begun.append(logger)
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                say_place(logger)

    def finish(self) -> None:
        """End the runs that have an end."""
        for logger in self._begun:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()


def say_place(logger: WandbLogger) -> None:
    """Say where a run of Weights & Biases can be looked at, or how to get it there; it is silent itself."""
    run = logger.experiment
    if run.disabled:
        return
    files = Path(os.path.relpath(run.sync_dir)).with_name("offline-*")
    say(f"Weights & Biases: offline; wandb sync {files}" if run.offline else f"Weights & Biases: {run.url}")
