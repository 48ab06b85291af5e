"""What a constructor says of its arguments, against what was typed for them."""

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", types.NoneType: "null"}
"""Kinds of values of which is known what they may be."""


def hints_of(target: Callable[..., Any]) -> Mapping[str, Any]:
    """Return what a class or function says of its arguments, by name; nothing where that cannot be read."""
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # names that are there for type checkers alone, and whatever an own module has
        try:
            parameters = inspect.signature(target).parameters
        except (TypeError, ValueError):
            return {}
        empty = inspect.Parameter.empty
        hints = {name: one.annotation for name, one in parameters.items() if one.annotation is not empty}
        return {name: hint for name, hint in hints.items() if not isinstance(hint, str)}
    return {name: hint for name, hint in hints.items() if name != "return"}


def hint_of_default(default: Any) -> Any:
    """Return what can be told of an argument by its default where nothing else is said: numbers stay numbers."""
    return float | bool | None if type(default) in (int, float) else Any


def mismatch(hint: Any, value: Any) -> str | None:
    """Return in words what was expected, where a plain value is of none of the kinds that are told; else None.

    Kinds that no text or number at the command line can be, such as a tensor beside a number, do not count.

    Args:
        hint: Such as `int | None`.
        value: As it was typed.

    >>> mismatch(int | None, "ten"), mismatch(float, 1), mismatch(Literal["max", "min"], "most")
    ('a whole number or null', None, 'max or min')
    """
    if not isinstance(value, int | float | bool | str | types.NoneType):
        return None
    kinds = _kinds(hint)
    words = [WORDS[kind] for kind in WORDS if kind in kinds and not (kind is int and float in kinds)]
    choices = list(dict.fromkeys(str(one) for kind in kinds for one in get_args(kind) if get_origin(kind) is Literal))
    unknown = [kind for kind in kinds if kind not in WORDS and get_origin(kind) is not Literal]
    if any(_may_be_plain(kind) for kind in unknown) or kinds == [Any]:
        return None
    if type(value) in kinds or str(value) in choices or (type(value) is int and float in kinds):
        return None
    if set(words) <= {WORDS[types.NoneType]}:
        words = [*(f"a {kind.__name__}" for kind in unknown), *words]
    listed = [*choices, *words]
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def _kinds(hint: Any) -> list[Any]:
    """Return what a union is of, or the one kind itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return [inner for kind in get_args(hint) for inner in _kinds(kind)]
    return [hint]


def _may_be_plain(kind: Any) -> bool:
    """Return whether what is no plain kind by name may be one, as `Any` is; of dictionaries the class itself tells."""
    own = get_origin(kind) or kind
    return not inspect.isclass(own) or own is object or issubclass(str, own) or issubclass(dict, own)
