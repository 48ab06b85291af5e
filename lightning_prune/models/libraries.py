"""Libraries that networks are taken from: each comes with an extra of this package, and none is needed otherwise."""

from collections.abc import Collection
from difflib import get_close_matches
from importlib import import_module
from textwrap import shorten
from types import ModuleType

from lightning_prune.errors import InputError


def import_library(package: str, extra: str) -> ModuleType:
    """Return a library that an extra installs.

    Args:
        package: As it is imported.
        extra: The extra of this package.

    Raises:
        InputError: If the library, or something that it needs, is not there or cannot be imported.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(
            f"model: expected the library {error.name}, got none in this environment; install it with "
            f'pip install "lightning-prune[{extra}]"'
        ) from error
    # What builds that do not fit each other raise.
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise InputError(
            f"model: expected {package} to be imported, got {type(error).__name__}: {shorten(str(error), 200)}; "
            f'install releases of torch and {package} that belong together, with pip install "lightning-prune[{extra}]"'
        ) from error


def unknown(key: str, expected: str, name: str, known: Collection[str]) -> InputError:
    """Return the error for a name that a library does not know, with those that are spelled nearly so.

    Args:
        key: Where the name is given, such as `model.name`.
        expected: What it should be the name of.
        name: The name.
        known: All names that the library knows.
    """
    near = get_close_matches(name, known, n=5, cutoff=0.5)
    advice = f"near it are {', '.join(near)}" if near else f"there are {', '.join(sorted(known)[:5])}, .."
    return InputError(f"{key}: expected {expected}, got {name!r}; {advice}")
