"""Encoded images in files of Apache Arrow, mapped into memory: any of them is at hand, and none is held."""

import hashlib
import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from filelock import FileLock
from huggingface_hub import constants
from PIL import Image
from pyarrow import parquet
from torch import Tensor

from lightning_prune.data.decoding import decode
from lightning_prune.errors import InputError

_ROWS = 64  # that are copied at once


class ArrowImages:
    """Hold the rows of some mapped files, and the labels of all images.

    Args:
        files: Parquet files, or files in Arrow's stream format.
        image_column: Name of the column with encoded images: bytes, or a struct with `bytes` and `path`.
        labels: `(n,)`, int64, of all rows.
    """

    def __init__(self, files: Sequence[Path], image_column: str, labels: Tensor) -> None:
        self.labels = labels
        self._files, self._column_name = files, image_column
        self._starts: list[int] = []
        self._open()

    def _open(self) -> None:
        tables = [open_table(file) for file in self._files]
        self._column = pa.chunked_array([chunk for table in tables for chunk in table[self._column_name].chunks])
        self._starts = [sum(len(table) for table in tables[:number]) for number in range(len(tables))]

    def __getstate__(self) -> dict[str, Any]:
        # A mapping cannot go to another process.
        return {"labels": self.labels, "_files": self._files, "_column_name": self._column_name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()

    def name(self, sample: int) -> str:
        """Return the file and the row of an image."""
        return row_name(self._files, self._starts, sample)

    def load(self, sample: int) -> Image.Image:
        """Decode an image to RGB.

        Raises:
            InputError: If there is none or it is damaged.
        """
        value = self._column[sample].as_py()
        encoded, path = (value["bytes"], value.get("path")) if isinstance(value, dict) else (value, None)
        if encoded is not None:
            return decode(BytesIO(encoded), self.name(sample))
        if path is None:
            raise InputError(f"data.path: expected an image, got null in {self.name(sample)}")
        return decode(Path(path), f"{path} of {self.name(sample)}")


def row_name(files: Sequence[Path], starts: Sequence[int], row: int) -> str:
    """Return what a row of several files is called in messages.

    Args:
        files: The files.
        starts: The number of rows before each.
        row: Counted over all.
    """
    number = max(number for number, start in enumerate(starts) if start <= row)
    return f"{files[number]}, row {row - starts[number]}"


def open_table(file: Path) -> pa.Table:
    """Map a file into memory; of a parquet file, whose rows are compressed, a copy is made once.

    Raises:
        InputError: If the file is damaged.
    """
    try:
        with pa.memory_map(str(_copy(file) if file.suffix == ".parquet" else file)) as mapped:
            return pa.ipc.open_stream(mapped).read_all()
    except (pa.ArrowException, OSError, UnicodeError) as error:
        kind = file.suffix.removeprefix(".")
        raise InputError(f"data.path: expected a {kind} file, got {file}, which is damaged or is none") from error


def _copy(file: Path) -> Path:
    """Return an uncompressed copy of a parquet file, in the cache of the Hugging Face libraries."""
    source, state = file.resolve(), file.stat()
    key = hashlib.sha256(f"{source} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:32]
    copy = Path(constants.HF_HOME) / "lightning_prune" / f"{key}.arrow"
    copy.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{copy}.lock"):
        if not copy.is_file():
            unfinished = copy.with_suffix(".unfinished")
            # One row group after the other: all at once would be read ahead and held.
            with (
                parquet.ParquetFile(source, pre_buffer=False) as rows,
                pa.ipc.new_stream(str(unfinished), rows.schema_arrow) as written,
            ):
                for group in range(rows.num_row_groups):
                    for batch in rows.iter_batches(_ROWS, row_groups=[group], use_threads=False):
                        written.write_batch(batch)
            os.replace(unfinished, copy)
    return copy


def read_labels(files: Sequence[Path], column: str, classes: Sequence[str] | None) -> Tensor:
    """Read the labels of all rows of some files.

    Args:
        files: The files.
        column: Name of the column.
        classes: What the values of a column of strings stand for, in the order of their numbers; also how many classes
            there are. None for a column of numbers of which nothing is known.

    Returns:
        `(n,)`, int64.

    Raises:
        InputError: If a label is missing or none of the classes.
    """
    tables = [open_table(file) for file in files]
    values = [value for table in tables for value in table[column].to_pylist()]
    numbers = {name: number for number, name in enumerate(classes or ())}
    labels = [numbers.get(value, -1) if isinstance(value, str) else value for value in values]
    high = float("inf") if classes is None else len(classes)
    for row, label in enumerate(labels):
        if label is None or not 0 <= label < high:
            starts = [sum(len(table) for table in tables[:number]) for number in range(len(tables))]
            expected = "a label" if classes is None else f"a label of {len(classes)} classes"
            where = row_name(files, starts, row)
            raise InputError(f"data.path: expected {expected}, got {values[row]!r} in column {column} of {where}")
    return torch.tensor(labels, dtype=torch.int64)
