"""The summary of a run: its models and whatever else is told of it, as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from lightning_prune.errors import InputError
from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Row

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Summary:
    """Hold what `summary.json` says: the models, and whatever else was written with them."""

    rows: tuple[Row, ...]
    extra: dict[str, Any]


def write_summary(path: Path, rows: Sequence[Row], extra: Mapping[str, Json]) -> None:
    """Write a summary as JSON, so that a reader finds all of it or none; NaN and infinities become null.

    Args:
        path: Usually `summary.json` in the run folder.
        rows: Models of different names; written under the key `rows`, by name.
        extra: Written beside `rows`. A sweep report reads `overrides`, a list such as `["seed=2"]`, and `strategy`, a
            name or a list of them.

    Raises:
        InputError: If two models have one name, or an extra entry is called `rows`.
    """
    models = {row.name: {"accuracy": row.accuracy, **asdict(row.profile)} for row in rows}
    if len(models) < len(rows):
        raise InputError(f"expected rows of different names, got {', '.join(row.name for row in rows)}")
    if "rows" in extra:
        raise InputError("expected extra entries of any name but rows, which holds the models; rename it")
    text = json.dumps(_without_nan({"rows": models, **extra}), indent=2, allow_nan=False)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)


def in_words(report: Mapping[str, Json]) -> str:
    """Return entries in one line.

    >>> in_words({"kernel_sparsity": 0.40001, "patterns": {"1-3-4-5": 12, "removed": 8}})
    'kernel sparsity 0.4, patterns (1-3-4-5: 12, removed: 8)'
    """
    return ", ".join(f"{key.replace('_', ' ')} {_in_words(value)}" for key, value in report.items())


def _in_words(value: Json) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key}: {_in_words(entry)}' for key, entry in value.items())})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _without_nan(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(entry) for entry in value]
    return value


def read_summary(path: Path) -> Summary:
    """Read what `write_summary` wrote.

    Raises:
        InputError: If there is no such file, or it is not a summary.
    """
    try:
        extra = json.loads(path.read_text())
        rows = tuple(_row(name, entries) for name, entries in extra.pop("rows").items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"expected a summary of a finished run in {path}, got {error!r}") from error
    return Summary(rows, extra)


def _row(name: str, entries: dict[str, Any]) -> Row:
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in entries.items()}
    return Row(name, known.pop("accuracy"), Profile(**known))
