"""One stage of training, from its last checkpoint to its best one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks import ExactResume, SparsityMonitor
from lightning_prune.errors import InputError
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.building import build, build_callbacks, build_trainer
from lightning_prune.runs.checkpoints import AtomicCheckpoints, check_checkpoint, checkpoint_callbacks
from lightning_prune.runs.configurations import folder_of
from lightning_prune.runs.late_loggers import LateLoggers
from lightning_prune.runs.messages import one_line
from lightning_prune.runs.monitoring import MonitorCheck, metric_of
from lightning_prune.runs.progress_line import ProgressLine


@contextmanager
def trained(
    cfg: DictConfig, module: LightningModule, data: LightningDataModule, strategy: Iterable[Callback]
) -> Iterator[Trainer]:
    """Train a module by the configuration of a stage, in its folder; the loggers take results until this is left."""
    folder = folder_of(cfg)
    with one_line():
        loggers: list[Logger] = [build(cfg, f"logger.{name}") for name in cfg.logger]
        late = LateLoggers(loggers, OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        callbacks = stage_callbacks(cfg, module, folder, [*strategy, *build_callbacks(cfg)])
        trainer = build_trainer(cfg, [*callbacks, late], [AtomicCheckpoints()], late.placeholders())
    try:
        fit_to_best(trainer, module, data, folder)
        yield trainer
    finally:
        late.finish()


def stage_callbacks(
    cfg: DictConfig, module: LightningModule, folder: RunFolder, chosen: Iterable[Callback]
) -> list[Callback]:
    """Return the callbacks of a stage: those that were chosen, and what every stage has where it makes sense."""
    callbacks = list(chosen)
    if cfg.trainer.get("enable_progress_bar") is not False and not _has(callbacks, ProgressBar):
        callbacks.append(ProgressLine())
    if cfg.logger and not _has(callbacks, LearningRateMonitor):
        callbacks.append(LearningRateMonitor())
    if cfg.monitor is not None:
        callbacks.append(MonitorCheck(cfg.monitor))
    metric = metric_of(cfg.monitor, cfg.mode, tested=False)
    saving: list[ModelCheckpoint] = checkpoint_callbacks(folder, cfg.monitor, metric.mode, cfg.checkpoint_every_n_steps)
    return [*callbacks, SparsityMonitor(), ExactResume(), *saving]


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
            raise InputError(f"{type(error).__name__}: {error}") from error
        raise
    module.cpu()
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    best = folder.saved_checkpoint
    if best is None:
        raise InputError("expected at least one epoch of training, got none; set trainer.max_epochs to 1 or more")
    module.load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
