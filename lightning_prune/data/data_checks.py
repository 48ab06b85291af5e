"""Checks of what a user types for a data set, made before any data is read."""

from os import PathLike
from pathlib import Path

from lightning_prune.data.views import count_views
from lightning_prune.errors import InputError


def check_integer(key: str, value: int, low: int, high: int) -> None:
    """Refuse what is no whole number in `low..high`.

    Raises:
        InputError: Naming `key`.
    """
    if not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{key}: expected a whole number in {low}..{high}, got {value!r}")


def check_fraction(key: str, value: float) -> None:
    """Refuse what is no fraction strictly between 0 and 1.

    Raises:
        InputError: Naming `key`.
    """
    if not isinstance(value, float) or not 0 < value < 1:
        raise InputError(f"{key}: expected a fraction in (0, 1), got {value!r}")


def check_serving(batch_size: int, seed: int) -> None:
    """Refuse a batch size or a seed that no data set can be served with.

    Raises:
        InputError: If one is out of range.
    """
    check_integer("data.batch_size", batch_size, 1, 2**31 - 1)
    check_integer("data.seed", seed, 0, 2**32 - 1)


def check_views(views: int | None, padding: int, flip: bool) -> None:
    """Refuse to show an image in more views than it has, or in none.

    Args:
        views: What the user gave as `data.views`; None is fine.
        padding: Width of the zero border, pixels.
        flip: Whether mirrored views exist.

    Raises:
        InputError: If the number is out of range.
    """
    if views is not None:
        check_integer("data.views", views, 1, count_views(padding, flip))


def check_folder(path: str | PathLike[str], content: str) -> Path:
    """Return `path`, or refuse what is no folder.

    Args:
        path: What the user gave as `data.path`.
        content: What the folder should hold, for the message.

    Raises:
        InputError: If the path does not exist or is no folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"data.path: expected a folder with {content}, got {folder}, which {reason}")
    return folder
