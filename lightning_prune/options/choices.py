"""What is chosen in the groups of `conf/`, checked before Hydra composes anything."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from lightning_prune.errors import InputError
from lightning_prune.options.flags import overrides_among
from lightning_prune.options.search_path import CONF
from lightning_prune.options.typed_words import OF_NONE


def options_of(group: str) -> list[str]:
    """Return the names that can be chosen in a group, a folder of `conf/`, here or in the current folder."""
    return sorted({path.stem for folder in (CONF, Path("conf")) for path in (folder / group).glob("*.yaml")})


def refuse_bad_choices(words: Sequence[str]) -> None:
    """Refuse what is no `key=value`, keys that are given twice, and choices in a group that are no names.

    Args:
        words: What was typed, options with dashes included.

    Raises:
        InputError: If there is such.
    """
    sweep = any(word in ("-m", "--multirun") for word in words)
    typed = overrides_among(words)
    parsed = [_parsed(number, typed) for number in range(len(typed))]
    # Lightning repeats Hydra's own for the other processes of a run.
    keys = {word: word.partition("=")[0].lstrip("+") for word in typed if not word.startswith("hydra.")}
    twice = next(
        (key for key, count in Counter(keys[word] for word in typed if word in keys).items() if count > 1), None
    )
    if twice is not None:
        same = " and ".join(word for word in typed if keys.get(word) == twice)
        raise InputError(f"expected {twice} once, got {same}")
    for word, one in zip(typed, parsed, strict=True):
        if one.is_sweep_override() and not sweep:
            key, _, values = word.partition("=")
            raise InputError(
                f"expected one value, got {word}; -m before it makes a run of each, {key}=[{values}] means all at once"
            )
        if one.is_delete() or "." in one.key_or_group or not (CONF / one.key_or_group).is_dir():
            continue
        for value in one.sweep_iterator() if one.is_sweep_override() else [one.value()]:
            _check_choice(word, one.key_or_group, value)


def _parsed(number: int, typed: Sequence[str]) -> Override:
    """Return what one of the overrides says.

    Raises:
        InputError: If it says nothing.
    """
    word = typed[number]
    key, equals, value = word.partition("=")
    around = typed[max(number - 1, 0) : number + 2]
    if any(one in ("=", f"{word}=") or (one == word and one.startswith("=")) for one in around) and len(around) > 1:
        raise InputError(f"expected key=value without blanks, got {' '.join(around)}")
    if not equals and not word.startswith("~"):
        if number and typed[number - 1].endswith("="):
            raise InputError(f"expected key=value without blanks, got {typed[number - 1]} {word}")
        groups = [group.name for group in sorted(CONF.iterdir()) if group.is_dir() and word in options_of(group.name)]
        hint = f"; did you mean {' or '.join(f'{group}={word}' for group in groups)}?" if groups else ""
        raise InputError(f"expected key=value, got {word}{hint}")
    if not key.strip("+~") or value.startswith("="):
        raise InputError(f"expected key=value, got {word}")
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise InputError(
            f"expected key=value, got {word}; a value with commas, brackets or blanks needs quotes, 'key=\"a value\"'"
        ) from error


def _check_choice(word: str, group: str, value: Any) -> None:
    """Refuse a choice in a group that is neither a name nor several, or that needs another one."""
    names = options_of(group)
    chosen = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or not all(isinstance(name, str) for name in chosen):
        if value is None and "none" not in names and group in OF_NONE:
            return
        hint = f"{group}=none" if value is None and "none" in names else f"{group} to be one of {', '.join(names)}"
        raise InputError(f"expected {hint}, got {word}")
    if len(set(chosen)) < len(chosen) or ("none" in chosen and len(chosen) > 1):
        raise InputError(f"expected options of {group} each of which is chosen once, or none alone, got {word}")
    if len(chosen) > 1 and group not in SEVERAL:
        raise InputError(f"expected one {group}, got {word}; choose one of them")


SEVERAL = ("callbacks", "experiment", "logger", "strategy")
"""Groups of which several options go together."""
