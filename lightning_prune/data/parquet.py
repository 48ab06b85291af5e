"""Labelled images from parquet files in the layout of the Hugging Face hub."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import torch
from pyarrow import compute, parquet

from lightning_prune.data.decoding import decode, stack
from lightning_prune.data.images import Images
from lightning_prune.errors import InputError

_IMAGE_COLUMNS = ("img", "image")


class _Row(NamedTuple):
    where: str
    encoded: bytes
    label: int


def read_parquet(files: Sequence[Path], label_columns: Sequence[str], num_classes: int) -> Images:
    """Read and decode all rows of some parquet files, in order.

    Args:
        files: The files, at least one. Each has a struct column `img` or `image` whose field `bytes` is an encoded
            image, and an integer column of labels.
        label_columns: Names the label column may have.
        num_classes: Number of classes.

    Returns:
        The images as RGB.

    Raises:
        InputError: If a file is damaged, empty or lacks a column, or an image or a label in it is not usable.
    """
    rows = [row for file in files for row in _read_rows(file, label_columns, num_classes)]
    pixels = stack((row.where, decode(BytesIO(row.encoded), row.where)) for row in rows)
    return Images(pixels, torch.tensor([row.label for row in rows]))


def _read_rows(file: Path, label_columns: Sequence[str], num_classes: int) -> Iterator[_Row]:
    encoded, labels = _read_columns(file, label_columns)
    if not labels:
        raise InputError(f"data.path: expected images in {file}, got a parquet file with no rows")
    for number, (image, label) in enumerate(zip(encoded, labels, strict=True)):
        where = f"{file}, row {number}"
        if image is None:
            raise InputError(f"data.path: expected an image, got null in {where}")
        if label is None or not 0 <= label < num_classes:
            raise InputError(f"data.path: expected a label in 0..{num_classes - 1}, got {label} in {where}")
        yield _Row(where, image, label)


def _read_columns(file: Path, label_columns: Sequence[str]) -> tuple[list[bytes | None], list[int | None]]:
    try:
        with parquet.ParquetFile(file) as source:
            image_column = _find_column(file, source.schema_arrow, _IMAGE_COLUMNS)
            label_column = _find_column(file, source.schema_arrow, label_columns)
            table = source.read([image_column, label_column])
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InputError(f"data.path: expected a parquet file, got {file}, which is damaged or is none") from error
    image_type, label_type = table[image_column].type, table[label_column].type
    if not pa.types.is_struct(image_type) or image_type.get_field_index("bytes") < 0:
        raise InputError(f"data.path: expected {image_column} with a field bytes, got {image_type} in {file}")
    if not pa.types.is_integer(label_type):
        raise InputError(f"data.path: expected {label_column} of integers, got {label_type} in {file}")
    return compute.struct_field(table[image_column], "bytes").to_pylist(), table[label_column].to_pylist()


def _find_column(file: Path, schema: pa.Schema, names: Sequence[str]) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        expected, columns = " or ".join(names), ", ".join(schema.names)
        raise InputError(f"data.path: expected a column {expected} in {file}, got the columns {columns}")
    return found
