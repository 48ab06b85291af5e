"""Loggers that begin when training does, so that a run that is refused leaves nothing with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger


class LateLoggers(Callback):
    """Give a Trainer its loggers once training begins; Lightning would begin their runs before anything is set up.

    Args:
        loggers: Those of the run.
        settings: What they note of it.
    """

    def __init__(self, loggers: Sequence[Logger], settings: Mapping[str, Any]) -> None:
        self.loggers, self._settings = list(loggers), settings

    def placeholders(self) -> list[Logger]:
        """Return what stands in a Trainer until then."""
        return [DummyLogger() for _ in self.loggers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the loggers in their places, and note the settings; a run of a few batches to try things has none."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it from another class
            return
        trainer.loggers = list(self.loggers)
        for logger in self.loggers:
            logger.log_hyperparams(dict(self._settings))
