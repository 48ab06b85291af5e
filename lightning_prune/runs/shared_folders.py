"""Folders that are made once, whoever wants them first, and are whole or not there."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.errors import InputError

log = logging.getLogger(__name__)


def settings_key(settings: object) -> str:
    """Return a short name of settings, lists and dictionaries of plain values; equal ones have the same.

    >>> settings_key({"seed": 0, "epochs": 20}) == settings_key({"epochs": 20, "seed": 0})
    True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def make_shared_folder(folder: Path, make: Callable[[Path], None]) -> bool:
    """Make a folder unless it is there already; of several jobs that want it, one does and the others wait for it.

    What is not whole lies beside it, in `folder.part`. There a job goes on where another one was killed.

    Args:
        folder: Where it is to be.
        make: Fills the folder that it is given. In a run of several processes all of them call it.

    Returns:
        Whether it had to be made.

    Raises:
        InputError: If the folder that it is to lie in cannot be made.
    """
    if folder.is_dir():
        return False
    part = folder.with_name(f"{folder.name}.part")
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # Lightning sets it on the function
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"expected a folder that can be written to, got {folder.parent}: {error.strerror}"
            ) from error
        with _locked(folder):
            if folder.is_dir():
                return False
            part.mkdir(exist_ok=True)
            make(part)
            part.replace(folder)
    else:
        make(part)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other jobs from making a folder, until this process ends in whatever way."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another job, which makes %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
