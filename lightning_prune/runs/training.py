"""One stage of training, from its last checkpoint to its best one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks import ExactResume, SparsityMonitor
from lightning_prune.errors import InputError
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.building import build
from lightning_prune.runs.checkpoints import AtomicCheckpoints, check_checkpoint, checkpoint_callbacks
from lightning_prune.runs.configurations import folder_of
from lightning_prune.runs.messages import one_line


@contextmanager
def trained(
    cfg: DictConfig, module: LightningModule, data: LightningDataModule, strategy: Iterable[Callback]
) -> Iterator[Trainer]:
    """Train a module by the configuration of a stage, in its folder; the loggers take results until this is left."""
    folder = folder_of(cfg)
    with one_line():
        watching = [SparsityMonitor(), LearningRateMonitor(), RichProgressBar(), ExactResume()]
        loggers: list[Logger] = [build(cfg, f"logger.{name}") for name in cfg.logger]
        settings = {
            "callbacks": [*strategy, *watching, *checkpoint_callbacks(folder, cfg.checkpoint_every_n_steps)],
            "logger": loggers,
            "default_root_dir": folder.path,
            "plugins": [AtomicCheckpoints()],
        }
        trainer: Trainer = build(cfg, "trainer", settings)
    try:
        for logger in loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        fit_to_best(trainer, module, data, folder)
        yield trainer
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()


def fit_to_best(trainer: Trainer, module: LightningModule, data: LightningDataModule, folder: RunFolder) -> None:
    """Train from the last checkpoint of a run on, and leave the module with the weights of its best one, on the CPU.

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
    best = folder.saved_checkpoint
    if best is None:
        raise InputError("expected at least one epoch of training, got none; set trainer.max_epochs to 1 or more")
    module.cpu().load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])
