"""The configurations of the stages of a run: the main one, the teacher's before it, the slim model's after it."""

import copy
import os
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks import Pruner, QuantizationAwareTraining
from lightning_prune.errors import InputError
from lightning_prune.runs.checkpoints import best_checkpoint
from lightning_prune.runs.exporting import check_format
from lightning_prune.runs.overrides import of_teachers, reads_dense
from lightning_prune.runs.shared_folders import key_of

VERSION = version("lightning-prune")


def settle_paths(cfg: DictConfig) -> None:
    """Make paths good for a later resume from elsewhere, and take architectures from the runs that are given."""
    if cfg.data.get("path"):
        cfg.data.path = str(Path(cfg.data.path).absolute())
    cfg.teacher.folder = str(Path(cfg.teacher.folder).absolute())
    if cfg.weights:
        cfg.weights = str(Path(cfg.weights).absolute())
        if not any(typed.startswith("model=") for typed in cfg.overrides):
            cfg.model = _model_of(cfg.weights) or cfg.model
    if cfg.teacher.checkpoint:
        cfg.teacher.checkpoint = str(Path(cfg.teacher.checkpoint).absolute())
        if not any(of_teachers(typed, "model") for typed in cfg.overrides):
            cfg.teacher.model = _model_of(cfg.teacher.checkpoint) or cfg.teacher.model


def _model_of(checkpoint: str) -> Any:
    """Return how the model of a checkpoint is built, as the configuration of its run says; None if there is none."""
    path = Path(checkpoint)
    folders = [path] if path.is_dir() else [path.parent, path.parent.parent]
    files = [folder / "config.yaml" for folder in folders if (folder / "config.yaml").is_file()]
    return OmegaConf.load(files[0]).model if files else None


def teaching(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a plain training of the teacher, in a folder named by all that determines it."""
    own = copy.deepcopy(cfg)
    own.model, own.optimizer, own.lr_scheduler = cfg.teacher.model, cfg.teacher.optimizer, cfg.teacher.lr_scheduler
    set_epochs(own, cfg.teacher.epochs)
    own.strategy, own.finetune, own.logger = {}, None, {"csv": cfg.logger.csv}
    own.overrides, own.sweep = [], None
    settings: Any = OmegaConf.to_container(own, resolve=True)
    trainer = {key: value for key, value in settings["trainer"].items() if not key.startswith(("log_", "enable_"))}
    determined = [settings[key] for key in ("model", "data", "optimizer", "lr_scheduler", "seed", "threads")]
    own.run_folder = str(Path(cfg.teacher.folder, key_of([VERSION, trainer, determined])))
    return own


def finetuning(cfg: DictConfig) -> DictConfig:
    """Return the configuration by which the slim model trains on, or its control does, below the run's folder."""
    own = copy.deepcopy(cfg)
    own.optimizer.update(OmegaConf.to_container(cfg.finetune.optimizer, resolve=True))
    own.lr_scheduler, own.strategy, own.finetune = cfg.finetune.lr_scheduler, cfg.finetune.strategy, None
    set_epochs(own, cfg.finetune.epochs)
    if cfg.finetune.get("from_scratch"):
        own.seed = cfg.seed + 1  # or it would begin with the very weights that were trained, and pruned
    own.run_folder, own.run_id = str(Path(cfg.run_folder, "finetune")), f"{cfg.run_id}-finetune"
    return own


def set_epochs(cfg: DictConfig, epochs: int) -> None:
    """Let a stage last so many epochs, however the length of the run is told."""
    cfg.trainer.max_epochs = epochs
    if "max_steps" in cfg.trainer:
        cfg.trainer.max_steps = -1


def check_stages(cfg: DictConfig, pruners: Collection[Pruner], last: Collection[Callback]) -> None:
    """Refuse stages that cannot follow on one another, and a file that cannot follow on them.

    Args:
        cfg: The configuration of the run.
        pruners: The callbacks of the main stage that prune.
        last: The callbacks of the last stage.

    Raises:
        InputError: If they are such.
    """
    strategy = f"strategy=[{','.join(cfg.strategy) or 'none'}]"
    if cfg.finetune and not pruners:
        raise InputError(
            f"expected a strategy that prunes before fine-tuning, got {strategy}; add one, or set finetune=none"
        )
    if reads_dense(cfg) and len(pruners) > 1:
        raise InputError(
            f"expected one pruner where the dense network teaches, got {strategy}; set finetune.teacher=teacher"
        )
    integer = [one for one in last if isinstance(one, QuantizationAwareTraining) and one.quantizer.integer]
    check_format(cfg.export, bool(integer))


def described(cfg: DictConfig) -> dict[str, Any]:
    """Return what the summary says of a run's configuration."""
    folder = Path(cfg.run_folder)
    return {
        "strategy": list(cfg.strategy),
        "sparsity": cfg.sparsity,
        "seed": cfg.seed,
        "overrides": list(cfg.overrides),
        "run_id": cfg.run_id,
        "checkpoint": os.path.relpath(best_checkpoint(folder) or folder, folder),
        "versions": {"lightning_prune": VERSION, "torch": torch.__version__},
    }
