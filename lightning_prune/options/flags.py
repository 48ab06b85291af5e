"""Hydra's own options, those with dashes, checked in one line where argparse would print its usage."""

from collections.abc import Sequence
from pathlib import Path

from lightning_prune.arguments import near
from lightning_prune.errors import InputError

FLAGS: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"), ()),
    **dict.fromkeys(("--multirun", "-m", "--shell-completion", "-sc"), ()),
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--package", "-p", "--config-path", "-cp", "--config-name", "-cn"), None),
    **dict.fromkeys(("--config-dir", "-cd", "--experimental-rerun"), None),
}
"""What may follow each: nothing, one of these words, or (None) any word."""

_INFO = ("--info", "-i")
"""Whose word may be left out."""


def overrides_among(words: Sequence[str]) -> list[str]:
    """Return what was typed without the options with dashes and their values.

    Args:
        words: What was typed.

    Raises:
        InputError: If there is an option that Hydra does not have, or one without the value that it needs.

    >>> overrides_among(["--cfg", "job", "seed=1"])
    ['seed=1']
    """
    found, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            found.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag not in FLAGS:
            raise InputError(_unknown(word, rest))
        values = FLAGS[flag]
        if values == () or (flag in _INFO and not equals and (not rest or "=" in rest[0] or rest[0].startswith("-"))):
            continue
        if not equals:
            if not rest:
                raise InputError(f"expected {flag} {'|'.join(values) if values else 'VALUE'}, got {flag} alone")
            value = rest.pop(0)
        _check(flag, values, value)
    return found


def _check(flag: str, values: tuple[str, ...] | None, value: str) -> None:
    if values and value not in values:
        raise InputError(f"expected {flag} with one of {', '.join(values)}, got {flag} {value}")
    if flag in ("--config-dir", "-cd") and not Path(value).is_dir():
        raise InputError(f"expected a folder behind {flag}, got {value}, which is none")


def _unknown(word: str, rest: Sequence[str]) -> str:
    """Return what is wrong with an option that Hydra does not have."""
    plain = word.lstrip("-")
    question = near(word, FLAGS, cutoff=0.8)
    if "=" in plain:
        return f"expected {plain}, without dashes, got {word}"
    if question:
        return f"expected an option that is there, got {word}{question}"
    if rest and not rest[0].startswith("-") and "=" not in rest[0]:
        return f"expected {plain}={rest[0]}, got {word} {rest[0]}"
    return f"expected {plain}=VALUE, or an option that --help lists, got {word}"
