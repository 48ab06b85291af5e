"""Options of a command that are typed as key=value, with their defaults in a NamedTuple."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from lightning_prune.arguments import near
from lightning_prune.errors import InputError

Options = TypeVar("Options", bound=NamedTuple)


def read_key_values(defaults: Options, typed: Sequence[str]) -> Options:
    """Return options with what was typed; each is a text, a whole number of at least 1, or true and false.

    Args:
        defaults: The options and what they are unless something is typed.
        typed: A list of key=value.

    Raises:
        InputError: If one is not known, or its value makes no sense.
    """
    given: dict[str, Any] = {}
    for word in typed:
        key, _, value = word.partition("=")
        if key not in defaults._fields or not value:
            known = ", ".join(f"{name}=..." for name in defaults._fields)
            raise InputError(f"expected options {known}, got {word}{near(key, defaults._fields)}")
        given[key] = _read(key, value, getattr(defaults, key))
    return defaults._replace(**given)


def _read(key: str, value: str, default: Any) -> Any:
    if isinstance(default, bool):
        if value.lower() not in ("true", "false"):
            raise InputError(f"expected {key} to be true or false, got {value}")
        return value.lower() == "true"
    if isinstance(default, int):
        if not value.isdecimal() or int(value) < 1:
            raise InputError(f"expected {key} to be a whole number of at least 1, got {value}")
        return int(value)
    return value


def help_of(defaults: NamedTuple, texts: dict[str, str]) -> str:
    """Return a line for each option."""
    shown = {key: getattr(defaults, key) for key in texts}
    return "\n".join(f"  {key}={_default(shown[key])}: {text}" for key, text in texts.items())


def _default(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value or "...")
