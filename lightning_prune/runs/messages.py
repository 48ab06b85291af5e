"""What a run says: its mistakes in one line, its own lines once for all processes, and less of what libraries say."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
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
    """Return what an error says in one line, with its type unless it is a person's mistake."""
    return joined(error) if isinstance(error, InputError) else f"{type(error).__name__}: {joined(error)}"


def joined(error: BaseException) -> str:
    """Return the text of an error in one line."""
    return " ".join(str(error).split())


@rank_zero_only
def say(line: str) -> None:
    """Print a line, once for all processes."""
    print(line, flush=True)


def quiet_libraries() -> None:
    """Leave out what Lightning says of itself, and warnings that nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning 2.6 on torch 2.13
    warnings.filterwarnings("ignore", ".*functional.all_gather is deprecated")  # the same
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # as it should, on resuming
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
