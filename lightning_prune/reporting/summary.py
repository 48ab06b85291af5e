"""The summary of a run: its models and whatever else is told of it, as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from lightning_prune.errors import InputError
from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Metric, Row

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Summary:
    """Hold what `summary.json` says: the models, what they are judged by, and whatever else was written with them."""

    rows: tuple[Row, ...]
    metric: Metric
    extra: dict[str, Any]


_ENTRIES = {"interval", "examples", *(field.name for field in fields(Profile))}
"""What is written of a model besides its score, which stands under the name of the metric."""


def write_summary(path: Path, rows: Sequence[Row], metric: Metric, extra: Mapping[str, Json]) -> None:
    """Write a summary as JSON, so that a reader finds all of it or none; NaN and infinities become null.

    Args:
        path: Usually `summary.json` in the run folder.
        rows: Models of different names; written under the key `rows`, by name.
        metric: Of their scores, each written under its name; written under the key `metric`.
        extra: Written beside these two. A sweep report reads `overrides`, a list such as `["seed=2"]`, and `strategy`,
            a name or a list of them.

    Raises:
        InputError: If two models have one name, an extra entry is called `rows` or `metric`, or the metric is called
            as one of the costs.
    """
    models = {row.name: _entries(row, metric) for row in rows}
    if len(models) < len(rows):
        raise InputError(f"expected rows of different names, got {', '.join(row.name for row in rows)}")
    if taken := {"rows", "metric"} & extra.keys():
        raise InputError(f"expected extra entries of any name but rows and metric, got {', '.join(taken)}; rename it")
    if metric.name in _ENTRIES:
        raise InputError(f"expected a metric of any name but {', '.join(sorted(_ENTRIES))}, got {metric.name}")
    summary = {"metric": asdict(metric), "rows": models, **extra}
    text = json.dumps(_without_nan(summary), indent=2, allow_nan=False)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)


def _entries(row: Row, metric: Metric) -> dict[str, Json]:
    return {metric.name: row.score, "interval": row.interval, "examples": row.examples, **asdict(row.profile)}


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
        # Before there was a choice it was the accuracy.
        metric = Metric(**extra.pop("metric", {"name": "accuracy", "mode": "max"}))
        rows = tuple(_row(name, metric, entries) for name, entries in extra.pop("rows").items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"expected a summary of a finished run in {path}, got {error!r}") from error
    return Summary(rows, metric, extra)


def _row(name: str, metric: Metric, entries: dict[str, Any]) -> Row:
    examples = entries.pop("examples", None)
    entries.pop("interval", None)  # it follows from the score and the number of examples
    known: dict[str, Any] = {key: math.nan if value is None else value for key, value in entries.items()}
    score = known.pop(metric.name)
    # Before quartiles were measured they were not written.
    return Row(name, score, Profile(**{"latency_low_ms": math.nan, "latency_high_ms": math.nan, **known}), examples)
