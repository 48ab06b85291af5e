"""Tensors within builtins as JSON, and a list of the tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_prune.errors import InputError

_TENSOR, _LIST, _TUPLE, _DICT = "tensor", "list", "tuple", "dict"
"""The first entry of a JSON array says what it stands for; a JSON object is a dictionary whose keys are all texts."""


def flatten(tree: Any) -> tuple[Any, list[Tensor]]:
    """Return a tree as what JSON can hold, in which a tensor is its place in the list that is returned too.

    A tensor that is there several times is listed once.

    Args:
        tree: Tensors of any shape, numbers, texts, None, and lists, tuples and dictionaries of such.

    Raises:
        InputError: If anything else is in it, a sparse tensor for example.
    """
    tensors: list[Tensor] = []
    places: dict[Any, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.layout != torch.strided:
                raise InputError(f"expected plain tensors to pack, got one of {value.layout}")
            key = (value.data_ptr() or id(value), value.dtype, value.shape, value.stride())
            if places.setdefault(key, len(tensors)) == len(tensors):
                tensors.append(value)
            return [_TENSOR, places[key]]
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Mapping):
            if all(type(key) is str for key in value):
                return {key: plain(entry) for key, entry in value.items()}
            return [_DICT, *([plain(key), plain(entry)] for key, entry in value.items())]
        if isinstance(value, list | tuple):
            return [_TUPLE if isinstance(value, tuple) else _LIST, *map(plain, value)]
        raise InputError(f"expected tensors and plain data to pack, got a {type(value).__name__}")

    return plain(tree), tensors


def restore(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the tree that `flatten` was given, from the plain one and the tensors, of any shape, that it returned.

    Raises:
        ValueError: If it is none that `flatten` returns.
    """
    if isinstance(tree, dict):
        return {key: restore(value, tensors) for key, value in tree.items()}
    if not isinstance(tree, list):
        return tree
    kind, *entries = tree or [None]
    if kind == _TENSOR:
        return tensors[_place(entries)]
    if kind in (_LIST, _TUPLE):
        restored = [restore(entry, tensors) for entry in entries]
        return tuple(restored) if kind == _TUPLE else restored
    if kind == _DICT:
        return {restore(key, tensors): restore(value, tensors) for key, value in entries}
    raise ValueError("something that is no plain data")


def named(tree: Any) -> list[str]:
    """Return by which keys each tensor of a tree from `flatten` is first reached, in the order of their places.

    Raises:
        ValueError: If it is none that `flatten` returns.
    """
    found: dict[int, str] = {}

    def walk(value: Any, keys: tuple[str, ...]) -> None:
        if isinstance(value, list) and value[:1] == [_TENSOR]:
            found.setdefault(_place(value[1:]), "/".join(keys))
        elif isinstance(value, list):
            for place, entry in enumerate(value[1:]):
                walk(entry, (*keys, str(place)))
        elif isinstance(value, dict):
            for key, entry in value.items():
                walk(entry, (*keys, key))

    walk(tree, ())
    if list(found) != list(range(len(found))):
        raise ValueError("tensors in disorder")
    return list(found.values())


def _place(entries: Sequence[Any]) -> int:
    if len(entries) != 1 or type(entries[0]) is not int or entries[0] < 0:
        raise ValueError("a tensor without a place")
    return entries[0]
