"""Hydra at work: what it refuses ends the program with one line, without its advice."""

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hydra.errors import ConfigCompositionException, MissingConfigException

from lightning_prune.errors import InputError
from lightning_prune.options.choices import near, options_of
from lightning_prune.options.overrides import WITHIN

_FULL, _ONE_LINE = "HYDRA_FULL_ERROR", "LIGHTNING_PRUNE_ONE_LINE"


@contextmanager
def composing(words: Sequence[str], job: str) -> Iterator[None]:
    """End the program with one line where what was typed is refused, by this package or by Hydra.

    Errors of a job are not touched. HYDRA_FULL_ERROR=1 shows where all come from.

    Args:
        words: What was typed.
        job: The module that runs a job once its configuration is there.
    """
    if wants_full_errors():
        yield
        return
    # Else Hydra prints and ends the program by itself. Other processes of this run find both variables.
    os.environ |= {_FULL: "1", _ONE_LINE: "1"}
    try:
        yield
    except Exception as error:
        if any(frame.f_globals.get("__name__") == job for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise
        raise SystemExit(f"Error: {explained(error, words)}") from error


def wants_full_errors() -> bool:
    """Return whether the person wants to see where errors come from."""
    return os.environ.get(_FULL) == "1" and _ONE_LINE not in os.environ


def explained(error: Exception, words: Sequence[str]) -> str:
    """Return in one line what is wrong with what was typed.

    Args:
        error: Of this package, Hydra or OmegaConf.
        words: What was typed.
    """
    inside = {word.partition("=")[0]: word for word in words if word.partition("=")[0] in WITHIN}
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _no_option(error.missing_cfg_file)
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return _no_key(error.__cause__)
    if isinstance(error, ConfigCompositionException) and inside:
        group, word = next(iter(inside.items()))
        strategy = WITHIN[group].split(".")[1]
        return f"expected strategy={strategy}, alone or among others, which takes a {group}, got {word} without it"
    text = " ".join(str(error).partition("\nTo append to your")[0].split())
    return text if isinstance(error, InputError | ConfigCompositionException) else f"{type(error).__name__}: {text}"


def _no_option(missing: str) -> str:
    """Return what is wrong with a file that is not there, such as `model/resnet21`."""
    group, _, name = missing.rpartition("/")
    names = options_of(group)
    if not names:
        return f"expected a configuration that is there, got {missing}"
    return f"expected {group} to be one of {', '.join(names)}, got {group}={name}{near(name, names)}"


def _no_key(cause: BaseException) -> str:
    """Return what is wrong with a key that is not there, as OmegaConf tells."""
    key = str(getattr(cause, "full_key", None) or "")
    parent, name = key.rpartition(".")[0], key.rpartition(".")[2]
    siblings = getattr(cause, "parent_node", None)
    known = sorted(map(str, siblings)) if isinstance(siblings, Mapping) else []
    place = f"below {parent}" if parent else "of the configuration"
    if not known:
        return f"expected a key {place}, got {key}: {' '.join(str(cause).split())}"
    listed = f", one of {', '.join(known)}" if parent else ", as --help lists them"
    return f"expected a key {place}{listed}, got {key}{near(name, known)}"
