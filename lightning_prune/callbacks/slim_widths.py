"""Checkpoints of slim models, for modules that are built as wide as ever."""

from collections.abc import Callable
from functools import partial
from multiprocessing import parent_process
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_prune.errors import InputError
from lightning_prune.export import shape_mismatch
from lightning_prune.slimming import load_slim_state, slim_state
from lightning_prune.training import CallbackOrder, OrderedCallback, refuse_sharding

_NAME = "on_load_checkpoint"


class SlimWidths(Callback):
    """Shrink the module to the checkpoint of a slim one before its weights are loaded, in every stage.

    `Trainer(callbacks=[SlimWidths()]).test(YourModule(), ckpt_path="slim.pt")` tests the slim model in a file of
    `save_slim`. Checkpoints that a trainer with it writes are such files as well, so that `ckpt_path="best"` works too
    and `load_slim(YourModule(), "best.ckpt")`. Checkpoints of other models are loaded as ever.

    Callbacks that prune, quantize or teach look at a module when a fit is set up, before any checkpoint is loaded: fit
    with them begins with `load_slim(YourModule(), path)`, to which every checkpoint fits.

    Raises:
        InputError: In the set-up of a run, if the strategy shards the weights, the checkpoint is of another
            architecture, or a fit has such callbacks and a module that would have to shrink.
    """

    def __init__(self) -> None:
        self._module: LightningModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Step in front of what the module itself does with a checkpoint, which comes before its weights."""
        refuse_sharding(trainer)
        self._step_back()
        self._module = pl_module
        vars(pl_module)[_NAME] = partial(_load, trainer, pl_module, pl_module.on_load_checkpoint)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say in a checkpoint what the file of a slim model says."""
        for key, value in slim_state(pl_module).items():
            checkpoint.setdefault(key, value)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._step_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._step_back()

    def _step_back(self) -> None:
        if self._module is not None:
            vars(self._module).pop(_NAME, None)
            self._module = None


def _load(
    trainer: Trainer, module: LightningModule, plain: Callable[[dict[str, Any]], None], checkpoint: dict[str, Any]
) -> None:
    """Shrink a module if it is wider than a checkpoint, and do with that what its own code does."""
    if "widths" in checkpoint and shape_mismatch(module.state_dict(), checkpoint["state_dict"]) is not None:
        if trainer.training:
            _check_that_it_may_shrink(trainer)
        load_slim_state(module, checkpoint, str(trainer.ckpt_path))
    plain(checkpoint)


def _check_that_it_may_shrink(trainer: Trainer) -> None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    early = [
        type(one).__name__
        for one in callbacks
        if isinstance(one, OrderedCallback) and one.order < CallbackOrder.MEASURING
    ]
    if trainer.world_size > 1 and parent_process() is not None:
        early.append("the process that started this one")  # which gets the trained weights for its own module
    if early:
        raise InputError(
            f"expected a module as slim as {trainer.ckpt_path}, since {' and '.join(early)} looked at it already, got "
            "a wider one; fit load_slim(module, path)"
        )
