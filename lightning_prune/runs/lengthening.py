"""A run that is trained longer than it was planned: what of its plan stays, and what is made anew."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from lightning_prune.errors import InputError
from lightning_prune.reporting import RunFolder

LENGTHS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time")
"""Keys that say how long a run is."""

_FROZEN = ("lr_scheduler", "teacher.epochs", "finetune.epochs")
"""What was told relative to the length of the run, and stays as it was."""

_ENDING = (
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.OneCycleLR",
    "lightning_prune.models.lr_schedules.OneCycle",
    "lightning_prune.models.lr_schedules.PerStep",
)
"""Learning rate schedules that lead nowhere behind the length for which they were made."""

_OF_STEPS = _ENDING[2:]
"""Those that count the steps of the whole run, and cannot begin within it."""


def is_lengthened(typed: Sequence[str]) -> bool:
    """Return whether what was typed beside `resume=` makes a run longer, and nothing else of it another.

    >>> is_lengthened(["trainer.max_epochs=40", "optimizer.lr=0.01"]), is_lengthened(["seed=1"])
    (True, False)
    """
    keys = {word.partition("=")[0].lstrip("+") for word in typed}
    return bool(keys & set(LENGTHS)) and all(key in LENGTHS or _is_of_rate(key) for key in keys)


def lengthened(old: DictConfig, composed: DictConfig, typed: Sequence[str], folder: RunFolder) -> DictConfig:
    """Return the configuration by which a run is trained longer.

    What it was to do after a fraction of its length stays where it was. Its learning rate schedule goes on as well,
    unless something is typed of it or of `optimizer.lr`: then a new one begins, for what is left.

    Args:
        old: The configuration of the run so far.
        composed: That of what was typed, whose other keys have their defaults.
        typed: What was typed beside `resume=`.
        folder: Of the run, with its last checkpoint.

    Raises:
        InputError: If the run is already as long, or its learning rate schedule cannot go on.
    """
    epochs, steps = _progress(folder)
    words = [word.lstrip("+") for word in typed]
    keys = [word.partition("=")[0] for word in words]
    _refuse_shorter(composed, keys, epochs, steps)
    cfg = old.copy()
    begins = any(_is_of_rate(key) for key in keys)
    planned = old.lengthened or {"max_epochs": old.trainer.max_epochs, "max_steps": old.trainer.get("max_steps", -1)}
    for key in _FROZEN:
        if OmegaConf.select(cfg, key) is not None and not (begins and key == "lr_scheduler"):
            OmegaConf.update(cfg, key, _resolved(cfg, key), merge=False)
    if "lr_scheduler" in keys:
        cfg.lr_scheduler = composed.lr_scheduler
    for key in keys:
        if key != "lr_scheduler":
            OmegaConf.update(cfg, key, _resolved(composed, key), merge=False, force_add=True)
    _refuse_ended(cfg, begins)
    since = (epochs, steps) if begins else (planned.get("epochs"), planned.get("steps"))
    cfg.lengthened = {
        "max_epochs": planned["max_epochs"],
        "max_steps": planned["max_steps"],
        "epochs": since[0],
        "steps": since[1],
    }
    cfg.overrides = [*old.overrides, *words]
    return cfg


def begin_lengthened(cfg: DictConfig) -> None:
    """Note that a run is longer from now on, and remove what it had ended with, which is made anew.

    Args:
        cfg: Of the run, in whose folder another one may lie so far.
    """
    folder = RunFolder(Path(cfg.run_folder))
    if not cfg.lengthened or os.environ.get("LOCAL_RANK", "0") != "0" or OmegaConf.load(folder.config) == cfg:
        return
    # In this order a run that is killed in between is still a whole one, the longer or the shorter.
    folder.summary.unlink(missing_ok=True)
    shutil.rmtree(folder.finetuning.path, ignore_errors=True)
    for file in (folder.finetuned, folder.momentum):
        file.unlink(missing_ok=True)
    OmegaConf.save(cfg, folder.config)


def _is_of_rate(key: str) -> bool:
    return key == "optimizer.lr" or key.partition(".")[0] == "lr_scheduler"


def _resolved(cfg: DictConfig, key: str) -> Any:
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _progress(folder: RunFolder) -> tuple[int, int]:
    """Return after how many whole epochs and optimizer steps the last checkpoint of a run was written.

    Raises:
        InputError: If there is none.
    """
    if not folder.last_checkpoint.is_file():
        raise InputError(
            f"expected a run with a checkpoint to train longer, got {os.path.relpath(folder.path)}, which has none; "
            "begin it anew with the length that it is to have"
        )
    checkpoint = torch.load(folder.last_checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], checkpoint["global_step"]


def _refuse_shorter(cfg: DictConfig, keys: Sequence[str], epochs: int, steps: int) -> None:
    done = {"trainer.max_epochs": epochs, "trainer.max_steps": steps}
    for key in [key for key in keys if key in done]:
        limit = OmegaConf.select(cfg, key)
        if not isinstance(limit, int) or (limit != -1 and limit <= done[key]):
            raise InputError(f"expected {key} of more than the {done[key]} that the run has behind it, got {limit}")


def _refuse_ended(cfg: DictConfig, begins: bool) -> None:
    name = str(cfg.lr_scheduler.get("_target_"))
    if begins and name in _OF_STEPS:
        raise InputError(
            f"expected a learning rate schedule that can begin within a run, got {name.rpartition('.')[2]}, which "
            "counts all its steps; set lr_scheduler=cosine or another"
        )
    if not begins and name in _ENDING:
        raise InputError(
            "expected a learning rate schedule for the further training, since that of the run, "
            f"{name.rpartition('.')[2]}, ends with its length; add lr_scheduler=NAME, and optimizer.lr=... for its "
            "first learning rate"
        )
