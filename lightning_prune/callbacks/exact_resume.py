"""Resume a run to the same bits: what Lightning leaves out of its checkpoints."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.training import (
    CallbackOrder,
    OrderedCallback,
    finish_batch,
    forget_loaders,
    internals,
    loop_state,
    moved,
    random_state,
    restore_loop,
    set_random_state,
)

State = dict[str, Any]


class ExactResume(OrderedCallback):
    """Let a run that is stopped and resumed from any checkpoint end with the bits of one that was never stopped.

    Put it behind the other callbacks of any Trainer; a run that is not resumed stays as it is. Each checkpoint gets
    what Lightning 2.6 leaves out, for every process, and it is put back before training goes on:

    * the random state of torch (CPU and GPU), NumPy and Python;
    * in mid-epoch, what `self.log` accumulates until the epoch's end, the states of the module's torchmetrics, the
      metrics that callbacks monitor, and, between the batches of one accumulated step, the gradients;
    * in mid-epoch, the place in plain `DataLoader`s: the epoch is drawn again as it was, and the batches trained on are
      loaded once more and dropped. Loaders with a `state_dict` keep their place themselves;
    * that the run was stopped before its time, by `EarlyStopping` for example: it stays so unless it is to be longer;
    * what Lightning does behind a checkpoint: log the step or the epoch, step `ReduceLROnPlateau`, and validate after
      `ModelCheckpoint(every_n_train_steps=...)` has saved on a batch that a validation follows.

    A resumed run still differs after a checkpoint written within a training step (`save_on_exception`); with workers
    of `DataLoader(persistent_workers=True)`, whose random state nobody can read; with another number of processes or
    other hardware; and where a hook that runs behind this callback's draws random numbers when training or an epoch
    starts. Generators that are not the global ones are their owner's to save.
    """

    order = CallbackOrder.RESUMING

    def __init__(self) -> None:
        self._loaded: State | None = None
        self._draws: list[State] = []  # random states before the epoch's iterators and before its first batch

    def objection(self, other: OrderedCallback) -> str | None:
        """Return why another callback makes no sense beside this one; None if it does."""
        return "one saves the state of the whole run" if isinstance(other, ExactResume) else None

    # Saving -----------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the random state from which Lightning builds the loaders' first iterators."""
        if self._loaded is not None:
            if self._loaded.get("stopped") and self._loaded["limits"] == _limits(trainer):
                trainer.should_stop = True  # by whatever stopped it; Lightning would train another epoch
            with internals():
                forget_loaders(trainer)
        self._draws = [random_state(pl_module.device)]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the random state from which the epoch is drawn."""
        state = random_state(pl_module.device)
        # Lightning builds the first iterators before training starts and those of later epochs right after this.
        self._draws = [self._draws[0] if trainer.current_epoch == 0 else state, state]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: State) -> None:
        """Add the states of all processes, since one of them writes the file."""
        own: State = {
            "random": random_state(pl_module.device),
            "draws": self._draws,
            "callback_metrics": {name: value.cpu() for name, value in trainer.callback_metrics.items()},
        }
        with internals():
            own |= loop_state(trainer, pl_module)
        states = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = [{} for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(states, own)
        checkpoint["callbacks"][self.state_key] = {
            "processes": states,
            "stopped": trainer.should_stop,
            "limits": _limits(trainer),
        }

    # Resuming ---------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take its place, and forget an earlier fit; a checkpoint's state is loaded after this."""
        super().setup(trainer, pl_module, stage)
        self._loaded = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: State) -> None:
        """Let Lightning validate if the checkpoint was written between the last batch before it and the validation."""
        processes = checkpoint["callbacks"].get(self.state_key, {}).get("processes", [{}])
        if processes[0].get("before_validation", False):
            finish_batch(checkpoint)

    def load_state_dict(self, state_dict: State) -> None:
        """Take over the state of a checkpoint."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put everything back, the random state last."""
        self._restore(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last epoch if the run was stopped between its checkpoint and its log: then no training starts."""
        self._restore(trainer, pl_module)

    def _restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded is None:
            return
        states, self._loaded = self._loaded["processes"], None
        if len(states) != trainer.world_size:
            rank_zero_warn(
                f"expected {len(states)} processes as in the checkpoint, got {trainer.world_size}: the run goes on, but"
                " not to the same bits"
            )
            return
        own = states[trainer.global_rank]
        trainer.callback_metrics.update(moved(own["callback_metrics"], pl_module.device))
        with internals():
            restore_loop(trainer, pl_module, own)
        self._draws = own["draws"]
        set_random_state(own["random"], pl_module.device)


def _limits(trainer: Trainer) -> list[int | None]:
    """Return what ends a run at the latest: its epochs and its optimizer steps."""
    return [trainer.max_epochs, trainer.max_steps]
