"""Where a data set in the layout of the Hugging Face hub keeps its parts, and in which columns."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import pyarrow as pa

from lightning_prune.errors import InputError

Parts = dict[str, list[PurePath]]
"""The files of each part (`train`, `test`, ..), in order."""

_LABELS = ("label", "labels", "class", "target", "fine_label")

_SHARD = re.compile(r"(?P<part>.+?)([-_]\d+(-of-\d+)?(-[0-9a-f]+)?)?$")


def arrange(files: Iterable[PurePath]) -> dict[str, Parts]:
    """Tell configurations and parts from the names of files.

    `CONFIG/train-00000-of-00002.parquet`, `CONFIG/train/0000.parquet` and `train/data-00000-of-00001.arrow` belong to
    the part `train`. What stands before is the name of the configuration, but for a folder `data`.

    Args:
        files: Relative to the folder of the data set.

    Returns:
        The parts of each configuration; the only one is called `default` if it has no folder.
    """
    found: dict[str, Parts] = defaultdict(lambda: defaultdict(list))
    for file in sorted(files):
        folders = list(file.parts[:-1])
        part = _SHARD.sub(r"\g<part>", file.stem)
        if (part == "data" or part.isdigit()) and folders:
            part = folders.pop()
        config = "/".join(folder for folder in folders if folder != "data")
        found[config or "default"][part].append(file)
    return {config: dict(parts) for config, parts in found.items()}


def choose(found: dict[str, Parts], name: str | None) -> Parts:
    """Return the parts of one configuration.

    Args:
        found: Those of all.
        name: Of the configuration; None for the only one, or the one called `default`.

    Raises:
        InputError: If there is none of this name, or several and no name.
    """
    chosen = name or (next(iter(found)) if len(found) == 1 else "default")
    if chosen not in found:
        raise InputError(f"data.name: expected one of {', '.join(found)}, got {name or 'none'}")
    return found[chosen]


class Columns(NamedTuple):
    """Hold the names of two columns, and those of the classes where the file tells them."""

    image: str
    label: str
    classes: list[str] | None


def find_columns(schema: pa.Schema, image: str | None, label: str | None) -> Columns:
    """Find the columns of images and labels.

    Args:
        schema: Of a table, with what the Hugging Face libraries tell about its columns, if they wrote it.
        image: Name of the column of images; None for the only one.
        label: Name of the column of labels; None for the only one of classes, or one that is called `label`, or so.

    Raises:
        InputError: If there is no such column, or more than one and no name.
    """
    features = _features(schema)
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"] or [
        field.name for field in schema if _holds_bytes(field.type)
    ]
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"] or [
        field.name for field in schema if field.name in _LABELS and _is_label(field.type)
    ]
    image = _pick("data.image_column", "of encoded images", image, images, schema.names)
    label = _pick("data.label_column", "of labels", label, labels, schema.names)
    if not _holds_bytes(schema.field(image).type):
        raise InputError(f"data.image_column: expected encoded images in {image}, got {schema.field(image).type}")
    if not _is_label(schema.field(label).type):
        raise InputError(f"data.label_column: expected integers or strings in {label}, got {schema.field(label).type}")
    return Columns(image, label, features.get(label, {}).get("names"))


def _features(schema: pa.Schema) -> dict[str, Any]:
    written = (schema.metadata or {}).get(b"huggingface")
    features: dict[str, Any] = json.loads(written)["info"]["features"] if written else {}
    return features


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _pick(key: str, what: str, given: str | None, found: Sequence[str], names: Collection[str]) -> str:
    if given is not None:
        if given not in names:
            raise InputError(f"{key}: expected one of the columns {', '.join(names)}, got {given}")
        return given
    if len(found) != 1:
        several = (
            f"{', '.join(found)}; name one by {key}=" if found else f"none in {', '.join(names)}; name it by {key}="
        )
        raise InputError(f"{key}: expected one column {what}, got {several}")
    return found[0]
