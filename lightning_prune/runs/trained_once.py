"""Networks that are trained before or beside a run, if their weights are nowhere, and kept for other runs."""

import os
from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_prune.callbacks import GALPruning
from lightning_prune.errors import InputError
from lightning_prune.export import ArchitectureMismatch, load_weights
from lightning_prune.options import needs_teacher
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.messages import in_epochs, one_line, say
from lightning_prune.runs.modules import build_module, facts
from lightning_prune.runs.shared_folders import make_shared_folder
from lightning_prune.runs.stages import baseline_stage, teacher_stage
from lightning_prune.runs.training import trained


def teacher_weights(cfg: DictConfig, data: LightningDataModule) -> Path | None:
    """Return where the teacher's weights are, and train it first if they are nowhere; None where nothing is learned."""
    if cfg.teacher.checkpoint:
        return Path(cfg.teacher.checkpoint)
    return _trained_once("Teacher", teacher_stage(cfg), data)


def baseline_weights(cfg: DictConfig, data: LightningDataModule, kind: str) -> Path | None:
    """Return where the weights of the run's baseline are, and train it if they are nowhere.

    Args:
        cfg: Of the run.
        data: Of the run.
        kind: See `baseline_kind`.

    Returns:
        None where there is no baseline, or nothing is learned.
    """
    if kind == "train":
        return _trained_once("Baseline", baseline_stage(cfg), data)
    if kind == "weights":
        return Path(cfg.weights) if cfg.weights else teacher_weights(cfg, data)
    return None


def baseline_kind(cfg: DictConfig, strategy: Iterable[Callback]) -> str:
    """Return what a run is compared with: `train`, `weights` or `none`.

    Where nothing is told it is the network that it begins with if that is a trained one, as with `weights=` and GAL,
    else one trained without compression.

    Raises:
        InputError: If something else is told, or weights that there are not.
    """
    if cfg.baseline not in (None, "train", "weights", "none"):
        raise InputError(f"expected baseline to be train, weights, none or null, got {cfg.baseline}")
    callbacks = list(strategy)
    trained = cfg.weights or any(isinstance(callback, GALPruning) for callback in callbacks)
    if cfg.baseline == "weights" and not trained and not needs_teacher(cfg):
        raise InputError("expected weights=RUN or a strategy with a teacher beside baseline=weights, got neither")
    if not callbacks or cfg.trainer.get("fast_dev_run"):
        return "none"
    return str(cfg.baseline or ("weights" if trained else "train"))


def _trained_once(name: str, own: DictConfig, data: LightningDataModule) -> Path | None:
    """Train a network unless it lies in its folder already."""
    if own.trainer.get("fast_dev_run"):
        return None

    def train(part: Path) -> None:
        say(f"{name}: {in_epochs(own.trainer.max_epochs)}, kept in {os.path.relpath(own.run_folder)}")
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            OmegaConf.save(own, RunFolder(part).config)
        with one_line():
            module = build_module(own, data)
        with trained(OmegaConf.merge(own, {"run_folder": str(part)}), module, data, []):  # type: ignore[arg-type]
            pass

    if not make_shared_folder(Path(own.run_folder), train):
        say(f"{name}: taken from {os.path.relpath(own.run_folder)}")
    return Path(own.run_folder)


def load_teacher(teacher: nn.Module | None, weights: Path | None, data: LightningDataModule) -> None:
    """Give the teacher its weights, if there is one.

    Raises:
        InputError: If they are not there, or those of another network.
    """
    if teacher is None or weights is None:
        return
    try:
        load_weights(teacher, weights)
    except ArchitectureMismatch as error:
        known = facts(data)
        fitting = " of {in_channels} channels and {num_classes} classes, as the data has," if len(known) == 2 else ""
        raise InputError(
            f"{error}; expected a teacher{fitting.format(**known)} and its architecture in model@teacher.model=NAME"
        ) from error
