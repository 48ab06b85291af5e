"""The trainer of the tests that need no other."""

from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger


def quiet_trainer(
    *callbacks: Callback, max_epochs: int | None = 2, logger: Logger | bool = False, **settings: Any
) -> Trainer:
    """Return a trainer on the CPU that shows nothing, and saves only what a callback is there to save."""
    return Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=logger,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
