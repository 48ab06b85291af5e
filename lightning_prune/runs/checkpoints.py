"""The checkpoints of a run: where they lie, when they are written, and training from the last to the best one."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_prune.callbacks import BestPrunedCheckpoint
from lightning_prune.errors import InputError
from lightning_prune.export import difference

FOLDER = "checkpoints"


def saving(run_folder: Path, every_n_steps: int | None) -> list[ModelCheckpoint]:
    """Return what writes the best checkpoint of a run by `val/accuracy`, and the last one.

    Args:
        run_folder: They lie below it.
        every_n_steps: Optimizer steps after which the last one is written within an epoch too; None for its end alone.

    Raises:
        InputError: If `every_n_steps` is not such a number.
    """
    folder = run_folder / FOLDER
    best = BestPrunedCheckpoint(folder, "best", monitor="val/accuracy", mode="max", enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    if every_n_steps is None:
        return [best, last]
    if not isinstance(every_n_steps, int) or every_n_steps < 1:
        raise InputError(
            f"expected checkpoint_every_n_steps to be null or a whole number of at least 1, got {every_n_steps}"
        )
    within = ModelCheckpoint(folder, "last", every_n_train_steps=every_n_steps, enable_version_counter=False)
    return [best, last, within]


def last_checkpoint(run_folder: Path) -> Path | None:
    """Return the last checkpoint of a run, from which it goes on, or None before there is one."""
    file = run_folder / FOLDER / "last.ckpt"
    return file if file.is_file() else None


def best_checkpoint(run_folder: Path) -> Path | None:
    """Return the best checkpoint of a run, the last one if none was chosen, or None before there is one."""
    file = run_folder / FOLDER / "best.ckpt"
    return file if file.is_file() else last_checkpoint(run_folder)


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints beside the old ones and put them in their place when they are whole.

    Lightning writes them in the system's folder for temporary files, from which a move to another disk is a copy that
    a kill leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        part = Path(path).with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, part)
        part.replace(path)


def fit(trainer: Trainer, module: LightningModule, data: LightningDataModule, run_folder: Path) -> None:
    """Train from the last checkpoint of a run on, and leave the module with the weights of its best one, on the CPU.

    Raises:
        InputError: If anything goes wrong before the first step: that is about how the run was set up.
    """
    last, start = last_checkpoint(run_folder), trainer.global_step
    if last is not None:
        check_fits(module, last)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    except InputError:
        raise
    except Exception as error:
        if trainer.global_step == start:
            raise InputError(f"{type(error).__name__}: {error}") from error
        raise
    best = best_checkpoint(run_folder)
    if best is None:
        raise InputError("expected at least one epoch of training, got none; set trainer.max_epochs to 1 or more")
    module.cpu().load_state_dict(torch.load(best, map_location="cpu", weights_only=True)["state_dict"])


def check_fits(module: LightningModule, checkpoint: Path) -> None:
    """Refuse a damaged checkpoint or one of another architecture, naming the first tensor that differs.

    Raises:
        InputError: If it is such a one.
    """
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise InputError(
            f"expected a checkpoint, got {checkpoint}, which is damaged; delete it to start anew"
        ) from error
    differs = difference(module.state_dict(), saved)
    if differs is not None:
        name, expected, got = differs
        raise InputError(f"expected {name} of {expected} in {checkpoint}, got {got}: it is of another architecture")
