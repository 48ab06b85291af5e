"""The checkpoints of a run: when they are written, how, and whether they fit."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lightning_prune.callbacks import BestPrunedCheckpoint
from lightning_prune.errors import InputError
from lightning_prune.export import shape_mismatch
from lightning_prune.reporting import RunFolder
from lightning_prune.slimming import is_plain


def checkpoint_callbacks(
    folder: RunFolder, monitor: str | None, mode: str, every_n_steps: int | None
) -> list[ModelCheckpoint]:
    """Return what writes the best checkpoint of a run, and the last one.

    Args:
        folder: Where they go.
        monitor: The metric that tells which is the best; None to write the last one alone.
        mode: Whether more of it is better, `max`, or less, `min`.
        every_n_steps: Optimizer steps after which the last one is written within an epoch too; None for its end alone.

    Raises:
        InputError: If `every_n_steps` is not such a number.
    """
    path, name = folder.checkpoints, folder.last_checkpoint.stem
    found: list[ModelCheckpoint] = []
    if monitor is not None:
        found.append(
            BestPrunedCheckpoint(
                path, folder.best_checkpoint.stem, monitor=monitor, mode=mode, enable_version_counter=False
            )
        )
    # Lightning would wait for a validation, which some epochs do not have.
    found.append(ModelCheckpoint(path, name, save_on_train_epoch_end=True, enable_version_counter=False))
    if every_n_steps is None:
        return found
    if not isinstance(every_n_steps, int) or every_n_steps < 1:
        raise InputError(
            f"expected checkpoint_every_n_steps to be null or a whole number of at least 1, got {every_n_steps}"
        )
    return [*found, ModelCheckpoint(path, name, every_n_train_steps=every_n_steps, enable_version_counter=False)]


class AtomicCheckpoints(TorchCheckpointIO):
    """Write checkpoints beside the old ones and put them in their place when they are whole.

    Lightning writes them in the system's folder for temporary files, from which a move to another disk is a copy that
    a kill leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint, and of the module's hyperparameters what can be read again without running any code."""
        key = LightningModule.CHECKPOINT_HYPER_PARAMS_KEY
        if key in checkpoint:
            plain = {name: value for name, value in checkpoint[key].items() if is_plain(value)}
            checkpoint = {**checkpoint, key: plain}
        part = Path(path).with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, part)
        part.replace(path)


def check_checkpoint(module: LightningModule, checkpoint: Path) -> None:
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
    differs = shape_mismatch(module.state_dict(), saved)
    if differs is not None:
        name, expected, got = differs
        raise InputError(f"expected {name} of {expected} in {checkpoint}, got {got}: it is of another architecture")
