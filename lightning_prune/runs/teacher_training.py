"""The teacher of a run: trained first if its weights are nowhere, and kept for other runs."""

import os
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_prune.data import InMemoryImages
from lightning_prune.errors import InputError
from lightning_prune.export import ArchitectureMismatch, load_weights
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.building import build_classifier
from lightning_prune.runs.messages import one_line, say
from lightning_prune.runs.shared_folders import make_shared_folder
from lightning_prune.runs.stages import teacher_stage
from lightning_prune.runs.training import trained


def teacher_weights(cfg: DictConfig, data: InMemoryImages) -> Path:
    """Return where the teacher's weights are, and train it first if they are nowhere."""
    if cfg.teacher.checkpoint:
        return Path(cfg.teacher.checkpoint)
    own = teacher_stage(cfg)

    def train(part: Path) -> None:
        say(f"Teacher: {own.trainer.max_epochs} epochs first, kept in {os.path.relpath(own.run_folder)}")
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            OmegaConf.save(own, RunFolder(part).config)
        with one_line():
            module = build_classifier(own, data)
        with trained(OmegaConf.merge(own, {"run_folder": str(part)}), module, data, []):  # type: ignore[arg-type]
            pass

    if not make_shared_folder(Path(own.run_folder), train):
        say(f"Teacher: taken from {os.path.relpath(own.run_folder)}")
    return Path(own.run_folder)


def load_teacher(teacher: nn.Module | None, weights: Path | None, data: InMemoryImages) -> None:
    """Give the teacher its weights, if there is one.

    Raises:
        InputError: If they are not there, or those of another network.
    """
    if teacher is None or weights is None:
        return
    try:
        load_weights(teacher, weights)
    except ArchitectureMismatch as error:
        raise InputError(
            f"{error}; expected a teacher of {data.in_channels} channels and {data.num_classes} classes, as the data "
            "has, and its architecture in model@teacher.model=NAME"
        ) from error
