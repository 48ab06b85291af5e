"""Strategies that no callback of this package can work with."""

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_prune.errors import InputError


def refuse_sharding(trainer: Trainer) -> None:
    """Refuse a strategy that leaves only parts of the weights on a device.

    Raises:
        InputError: If the trainer has one.
    """
    if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
        name = type(trainer.strategy).__name__
        raise InputError(f"expected a strategy that keeps whole weights on every device, got {name}; use ddp")
