"""The configurations of the stages beside the main one: the teacher's before it, the slim model's after it."""

import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from lightning_prune.options import WITHIN
from lightning_prune.runs.configurations import folder_of
from lightning_prune.runs.shared_folders import settings_key

VERSION = version("lightning-prune")

_SHOWING = ("log_", "enable_", "profiler", "limit_test_", "limit_predict_", "detect_anomaly")
"""How settings of a Trainer begin that change nothing in what is trained."""


def main_stage(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a run without what is relative to a length that its schedule does not have.

    A learning rate schedule that began within a lengthened run is one for the epochs that were left then.
    """
    if not cfg.lengthened or cfg.lengthened.epochs is None or cfg.trainer.max_epochs == -1:
        return cfg
    own, epochs = copy.deepcopy(cfg), cfg.trainer.max_epochs
    own.trainer.max_epochs = epochs - cfg.lengthened.epochs
    own.lr_scheduler = OmegaConf.to_container(own.lr_scheduler, resolve=True)
    own.trainer.max_epochs = epochs
    return own


def teacher_stage(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a plain training of the teacher, in a folder named by all that determines it."""
    own = copy.deepcopy(cfg)
    own.model, own.optimizer, own.lr_scheduler = cfg.teacher.model, cfg.teacher.optimizer, cfg.teacher.lr_scheduler
    set_epochs(own, cfg.teacher.epochs)
    return _kept_stage(own)


def baseline_stage(cfg: DictConfig) -> DictConfig:
    """Return the configuration of a run without its strategies, in a folder named by all that determines it.

    It begins with the run's weights, if it has any, and trains by the same recipe for as long.
    """
    return _kept_stage(copy.deepcopy(cfg), weights=cfg.weights)


def _kept_stage(own: DictConfig, weights: str | None = None) -> DictConfig:
    """Return a configuration without what does not determine the network that a plain training ends with."""
    _take_strategy(own, {})
    own.finetune, own.logger = None, {name: own.logger[name] for name in ("csv",) if name in own.logger}
    own.overrides, own.sweep, own.weights, own.baseline, own.lengthened = [], None, weights, "none", None
    settings: Any = OmegaConf.to_container(own, resolve=True)
    trainer = {key: value for key, value in settings["trainer"].items() if not key.startswith(_SHOWING)}
    keys = ("module", "model", "data", "optimizer", "lr_scheduler", "callbacks", "seed", "threads", "weights")
    determined = [settings[key] for key in (*keys, "monitor", "mode")]
    own.run_folder = str(Path(own.teacher.folder, settings_key([VERSION, trainer, determined])))
    return own


def finetuning_stage(cfg: DictConfig) -> DictConfig:
    """Return the configuration by which the slim model trains on, or its control does, below the run's folder."""
    own = copy.deepcopy(cfg)
    own.optimizer.update(OmegaConf.to_container(cfg.finetune.optimizer, resolve=True))
    _take_strategy(own, cfg.finetune.strategy)
    own.lr_scheduler, own.finetune = cfg.finetune.lr_scheduler, None
    with open_dict(own):
        own.callbacks.pop("lr_finder", None)  # the learning rate of this stage is told
    set_epochs(own, cfg.finetune.epochs)
    if cfg.finetune.get("from_scratch"):
        own.seed = cfg.seed + 1  # or it would begin with the very weights that were trained, and pruned
    own.lengthened = None
    own.run_folder, own.run_id = str(folder_of(cfg).finetuning.path), f"{cfg.run_id}-finetune"
    return own


def _take_strategy(cfg: DictConfig, strategy: Any) -> None:
    """Give a stage a strategy of its own, and leave out what was chosen for that of the main stage."""
    with open_dict(cfg):
        for group in WITHIN:
            cfg.pop(group, None)
    cfg.strategy = strategy


def set_epochs(cfg: DictConfig, epochs: int) -> None:
    """Let a stage last so many epochs, however the length of the run is told."""
    cfg.trainer.max_epochs = epochs
    if "max_steps" in cfg.trainer:
        cfg.trainer.max_steps = -1
