"""One stage of training, from its last checkpoint to its best one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    RichModelSummary,
    StochasticWeightAveraging,
)
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks import ExactResume, Pruner, SparsityMonitor
from lightning_prune.errors import InputError
from lightning_prune.pruning import HeldMasks
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.checkpoints import AtomicCheckpoints, check_checkpoint, checkpoint_callbacks
from lightning_prune.runs.configurations import folder_of
from lightning_prune.runs.fresh_schedule import FreshSchedule
from lightning_prune.runs.late_loggers import LateLoggers
from lightning_prune.runs.messages import first_line, one_line
from lightning_prune.runs.monitoring import MonitorCheck, metric_of
from lightning_prune.runs.progress_line import ProgressLine
from lightning_prune.runs.trainers import build_callbacks, build_loggers, build_trainer
from lightning_prune.training import PlannedLength


@contextmanager
def trained(
    cfg: DictConfig, module: LightningModule, data: LightningDataModule, strategy: Iterable[Callback]
) -> Iterator[Trainer]:
    """Train a module by the configuration of a stage, in its folder; the loggers take results until this is left."""
    folder = folder_of(cfg)
    with one_line():
        late = LateLoggers(build_loggers(cfg), OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        # The chosen ones first: what they make of the weights is masked by those of the strategies.
        callbacks = stage_callbacks(cfg, folder, [*build_callbacks(cfg), *strategy])
        trainer = build_trainer(cfg, [*callbacks, late], [AtomicCheckpoints()], late.placeholders())
    try:
        fit_to_best(trainer, module, data, folder)
        yield trainer
    finally:
        late.finish()


def stage_callbacks(cfg: DictConfig, folder: RunFolder, chosen: Iterable[Callback]) -> list[Callback]:
    """Return the callbacks of a stage: those that were chosen, and what every stage has where it makes sense."""
    callbacks = list(chosen)
    if cfg.trainer.get("enable_progress_bar") is not False and not _has(callbacks, ProgressBar):
        callbacks.append(ProgressLine())
    if cfg.logger and not _has(callbacks, LearningRateMonitor):
        callbacks.append(LearningRateMonitor())
    if cfg.trainer.get("enable_model_summary") and not _has(callbacks, ModelSummary):
        callbacks.append(RichModelSummary())  # Lightning's own is written to a log that nobody reads
    callbacks.insert(0, MonitorCheck(_monitors(cfg)))  # before those that wait for the metrics
    mode = metric_of(cfg.monitor, cfg.mode, tested=False).mode
    monitor = None if cfg.trainer.get("limit_val_batches") == 0 else cfg.monitor
    saving: list[ModelCheckpoint] = checkpoint_callbacks(folder, monitor, mode, cfg.checkpoint_every_n_steps)
    return [*callbacks, *_of_length(cfg, callbacks), SparsityMonitor(), ExactResume(), *saving]


def _of_length(cfg: DictConfig, callbacks: Iterable[Callback]) -> list[Callback]:
    """Return what keeps the plan of a run that is trained longer.

    Raises:
        InputError: If averaging has changed the weights with which it ended.
    """
    if not cfg.lengthened:
        return []
    if _has(callbacks, StochasticWeightAveraging):
        raise InputError(
            "expected a run whose weights go on to train longer, got callbacks=swa, which has put averages in their "
            f"place; begin a new run, with weights={cfg.run_folder} for its weights"
        )
    planned = cfg.lengthened
    fresh = [] if planned.steps is None else [FreshSchedule(planned.steps)]
    return [PlannedLength(planned.max_epochs, planned.max_steps), *fresh]


def _monitors(cfg: DictConfig) -> dict[str, str]:
    """Return what is to be logged in validation, by the key where it is told."""
    stopping = {
        f"callbacks.{name}.monitor": options.monitor
        for name, options in cfg.callbacks.items()
        if options["_target_"] == f"lightning.pytorch.callbacks.{EarlyStopping.__name__}"
        and not options.get("check_on_train_epoch_end")
    }
    return stopping if cfg.monitor is None else {"monitor": cfg.monitor, **stopping}


def _has(callbacks: Iterable[Callback], kind: type[Any]) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def fit_to_best(trainer: Trainer, module: LightningModule, data: LightningDataModule, folder: RunFolder) -> None:
    """Train from the last checkpoint of a run on, and leave the module with the weights of its best one, on the CPU.

    A run of a few batches to try things, `fast_dev_run`, has no checkpoints: the module stays as it ends.

    Raises:
        InputError: If anything goes wrong before the first step: that is about how the run was set up.
    """
    last, start = folder.last_checkpoint if folder.last_checkpoint.is_file() else None, trainer.global_step
    if last is not None:
        check_checkpoint(module, last)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except InputError:
        raise
    except Exception as error:
        if trainer.global_step == start:
            raise InputError(first_line(error)) from error
        raise
    module.cpu()
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    best = folder.saved_checkpoint
    if best is None:
        raise InputError(
            "expected at least one epoch of training, got none; set trainer.max_epochs and max_steps to 1 or more"
        )
    module.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        # A checkpoint from before the last choice, or of averaged weights, is not masked.
        if isinstance(callback, Pruner) and callback.masks is not None:
            HeldMasks(module, callback.masks).enforce()
