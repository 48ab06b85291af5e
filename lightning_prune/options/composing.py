"""Hydra at work: what it refuses ends the program with one line, without its advice."""

import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hydra.errors import ConfigCompositionException, MissingConfigException

from lightning_prune.arguments import near
from lightning_prune.errors import InputError
from lightning_prune.options.choices import options_of
from lightning_prune.options.overrides import OF_FINETUNING, WITHIN, known_keys
from lightning_prune.options.refused import remove_refused_sweep

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
        remove_refused_sweep()
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
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        return _no_option(error.missing_cfg_file, error.options or [])
    if isinstance(error, ConfigCompositionException) and error.__cause__ is not None:
        return _no_key(error.__cause__)
    if isinstance(error, OSError):
        return f"expected a folder that can be written to, got {error.filename}: {error.strerror}"
    without = _without_strategy(words) if isinstance(error, ConfigCompositionException) else None
    if without is not None:
        return without
    unknown = _unknown_word(words) if isinstance(error, ConfigCompositionException) else None
    if unknown is not None:
        return unknown
    text = " ".join(str(error).partition("\nTo append to your")[0].split())
    return text if isinstance(error, InputError | ConfigCompositionException) else f"{type(error).__name__}: {text}"


def _without_strategy(words: Sequence[str]) -> str | None:
    """Return what is wrong with a group whose options go into a strategy that was not chosen; None if it was."""
    for word in words:
        group = word.partition("=")[0]
        strategy = WITHIN[group].split(".")[1] if group in WITHIN else ""
        chosen = [name for one in words if one.startswith("strategy=") for name in re.findall(r"\w+", one)]
        if strategy and strategy not in chosen:
            hint = f"; that of finetune={strategy} is told by {OF_FINETUNING[group]}"
            of_last = hint if f"finetune={strategy}" in words else ""
            return (
                f"expected strategy={strategy}, alone or among others, which takes a {group}, got {word} without it"
                f"{of_last}"
            )
    return None


def _unknown_word(words: Sequence[str]) -> str | None:
    """Return what is wrong with a word that is for no key and no group; None if all are."""
    keys = known_keys()
    for word in words:
        key, equals, _ = word.lstrip("~").partition("=")
        group, _, place = key.partition("@")
        if not word.startswith(("+", "-")) and (equals or word.startswith("~")):
            if re.split(r"[./]", group)[0] not in keys:
                return f"expected a key of the configuration, as --help lists them, got {word}{near(group, keys)}"
            if place and re.split(r"[./]", place)[0] in keys:
                places = [f"{group}@{one}.{group}" for one in ("teacher", "finetune")]
                return f"expected {group}=NAME for the run, or {' or '.join(places)} for a part of it, got {word}"
    return None


def _no_option(missing: str, options: Sequence[str]) -> str:
    """Return what is wrong with a file that is not there, such as `model/resnet21`, where there are these."""
    group, _, name = missing.rpartition("/")
    names = sorted(options) or options_of(group)
    if not group:
        return f"expected --config-name with one of {', '.join(names)}, got {name}{near(name, names)}"
    if not names:
        return f"expected a configuration that is there, got {missing}"
    return f"expected {group} to be one of {', '.join(names)}, got {group}={name}{near(name, names)}"


def _no_key(cause: BaseException) -> str:
    """Return what is wrong with a key that is not there, as OmegaConf tells."""
    key = str(getattr(cause, "full_key", None) or "")
    parent, name = key.rpartition(".")[0], key.rpartition(".")[2]
    siblings = getattr(cause, "parent_node", None)
    known = sorted(map(str, siblings)) if isinstance(siblings, Mapping) else []
    if parent == "strategy" and name in options_of("strategy"):
        return f"expected strategy={name}, alone or among others, before an option of it, got {key}"
    if not parent and name in options_of("strategy"):
        return f"expected options of a strategy below strategy.{name}, got {name}"
    if not known and parent and "." not in parent and options_of(parent):
        names = [one for one in options_of(parent) if one != "none"]
        return f"expected {parent}=NAME, one of {', '.join(names)}, before an option of it, got {key}"
    if parent and not known:
        return f"expected no key below {parent}, which is a single value, or nothing yet, got {key}"
    if not known:
        return f"expected a key of the configuration, got {key}: {' '.join(str(cause).split())}"
    place = f"below {parent}, one of {', '.join(known)}" if parent else "of the configuration, as --help lists them"
    return f"expected a key {place}, got {key}{near(name, known)}"
