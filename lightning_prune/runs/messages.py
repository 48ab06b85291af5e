"""What a run says: its mistakes in one line, its own lines once for all processes, and less of what libraries say."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from lightning_prune.errors import InputError


@contextmanager
def one_line() -> Iterator[None]:
    """Turn all errors into those of one line, where they are about what was typed.

    HYDRA_FULL_ERROR=1 shows where they came from.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(first_line(error)) from error


@contextmanager
def ending_in_one_line(*kinds: type[Exception]) -> Iterator[None]:
    """End the program with one line for mistakes of a person, and for other errors of these kinds."""
    mistakes: tuple[type[Exception], ...] = (InputError, HydraException, *kinds)
    try:
        yield
    except mistakes as error:
        raise SystemExit(f"Error: {joined(error)}") from error


def first_line(error: BaseException) -> str:
    """Return what an error says in one line, with its type unless that says no more than that a value is wrong."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{type(error).__name__}: {error.filename}: {error.strerror}"
    plain = isinstance(error, ValueError | MisconfigurationException) and str(error)
    return joined(error) if plain else f"{type(error).__name__}: {joined(error)}"


def joined(error: BaseException) -> str:
    """Return the text of an error in one line."""
    return " ".join(str(error).split())


def in_epochs(count: int) -> str:
    """Return a length in words.

    >>> in_epochs(1), in_epochs(20)
    ('1 epoch', '20 epochs')
    """
    return f"{count} epoch{'s' * (count != 1)}"


@rank_zero_only
def say(line: str) -> None:
    """Print a line, once for all processes."""
    print(line, flush=True)


def quiet_libraries() -> None:
    """Leave out what Lightning says of itself, and warnings that nobody can act on; show the others in a line each."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.showwarning = _shown_once()
    for message in _USELESS:
        warnings.filterwarnings("ignore", message)


_USELESS = (
    ".*LeafSpec",  # Lightning 2.6 on torch 2.13
    ".*functional.all_gather is deprecated",  # the same
    "Checkpoint directory .* exists and is not empty",  # as it should, on resuming
    "Experiment logs directory .* exists and is not empty",
)
"""How warnings begin that nobody can act on."""


def _shown_once() -> Callable[..., None]:
    """Return what shows a warning in one line, and no second time: every stage has a Trainer that warns."""
    known: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        line = f"Warning: {' '.join(str(message).split())}"
        if line not in known:
            known.add(line)
            print(line, file=sys.stderr)

    return show


@contextmanager
def quiet_wandb() -> Iterator[None]:
    """Let Weights & Biases begin without a word and leave the screen alone, unless its own variables say otherwise.

    Where somebody would be asked to log in, it fails and says how to.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    # It warns, before it has read the first of these, of an option that Lightning sets.
    said = io.StringIO() if os.environ["WANDB_SILENT"] == "true" else sys.stderr
    with redirect_stderr(said):
        yield
