"""Tables, summaries and pictures of finished runs, from the files in their folders."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lightning_prune.errors import InputError
from lightning_prune.reporting.plots import Curves, draw_curves, percent
from lightning_prune.reporting.profiling import Profile

EXPORTED = "exported"
"""The name of the file that the last model was written to, once it was opened again."""

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Row:
    """Hold what is reported of one model.

    Attributes:
        name: Which model: `"teacher"`, `"dense"`, `"masked"`, `"slim"`, `"fine-tuned"`, `"exported"` or another.
        accuracy: Test accuracy, in [0, 1]; NaN where it is not known.
        profile: What the model costs.
    """

    name: str
    accuracy: float
    profile: Profile


def reference(rows: Sequence[Row]) -> Row:
    """Return the model that others are compared with: the first one of the run's own, which is not its teacher."""
    return next((row for row in rows if row.name != "teacher"), rows[0])


# Curves of one run ----------------------------------------------------------------------------------------------------


def read_metrics(run_folder: Path) -> Curves:
    """Return what a run logged by metric, then by the number of epochs finished: `curves["val/accuracy"][3]`.

    Of several values in one epoch the last counts. Test metrics are left out: they belong to no epoch.

    Args:
        run_folder: Holds `csv/version_*/metrics.csv`. A resumed run writes a new version and repeats what came after
            its checkpoint, so of earlier versions only the epochs up to its first one count.

    Raises:
        InputError: If the folder has no such file.
    """
    files = run_folder.glob("csv/version_[0-9]*/metrics.csv")
    versions = sorted(files, key=lambda file: int(file.parent.name.removeprefix("version_")))
    if not versions:
        raise InputError(f"expected a run folder with csv/version_*/metrics.csv, got {run_folder}")
    curves: Curves = {}
    for version in versions:
        rows = list(_logged(version))
        start = min((epoch for epoch, _ in rows), default=math.inf)
        curves = {name: {epoch: v for epoch, v in points.items() if epoch <= start} for name, points in curves.items()}
        for epoch, metrics in rows:
            for name, value in metrics.items():
                curves.setdefault(name, {})[epoch] = value
    return {name: points for name, points in curves.items() if points}


def _logged(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield epoch, counted from 1, and metrics of every line that has both."""
    text = file.read_text()
    # A killed run can leave half a line at the end.
    complete = text[: text.rfind("\n") + 1]
    for row in csv.DictReader(complete.splitlines()):
        epoch = row.pop("epoch", "")
        row.pop("step", None)
        metrics = {name: float(cell) for name, cell in row.items() if cell and not name.startswith("test/")}
        if epoch and metrics:
            yield int(epoch) + 1, metrics


def plot_curves(run_folder: Path, rows: Sequence[Row] = (), *, hard_from_epoch: float | None = None) -> Path:
    """Draw `curves.png` into a run folder: accuracy, sparsity and remaining MACs over the epochs.

    Args:
        run_folder: See `read_metrics`.
        rows: Models whose test accuracy is stated.
        hard_from_epoch: Epochs, not always whole, after which the masks are final; the rest of the run is shaded.

    Raises:
        InputError: If the folder has no logged metrics, or none of those that are drawn.
    """
    accuracies = {row.name: row.accuracy for row in rows if row.name != EXPORTED}  # which is the last one again
    path = run_folder / "curves.png"
    curves = read_metrics(run_folder)
    draw_curves(curves, title(run_folder), accuracies=accuracies, hard_from_epoch=hard_from_epoch).savefig(path)
    return path


def title(folder: Path) -> str:
    """Return the last two parts of a run's or a sweep's path, its date and time."""
    return "/".join(folder.resolve().parts[-2:])


# The table at the end of a run ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EndTable:
    """Render models as lines of a table, each number with its ratio to that of one of them, see `reference`.

    Ratios stand beside the numbers where the console is wide enough, below them otherwise.

    Args:
        rows: At least one model.
    """

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table with ratios beside the numbers if that fits, else below them."""
        wide = self._table("  ")
        # A measurement never exceeds the width it is asked for.
        unbounded = options.update_width(10_000)
        fits = Measurement.get(console, unbounded, wide).maximum <= options.max_width
        yield wide if fits else self._table("\n")

    def _table(self, separator: str) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=Text(self._caption()), caption_justify="left"
        )
        table.add_column("Model", style="bold")
        columns = self._columns()
        for heading in columns:
            table.add_column(heading.replace(" ", separator.strip(" ") or " "), justify="right")
        for row, *cells in zip(self.rows, *columns.values(), strict=True):
            table.add_row(Text(row.name), *(Text.assemble(number, separator, (note, "dim")) for number, note in cells))
        return table

    def _columns(self) -> dict[str, list[tuple[str, str]]]:
        """Return (number, note) of every row, by heading; the notes of one column are equally long."""
        base = reference(self.rows)
        accuracies = [row.accuracy for row in self.rows]
        changes = [100 * (accuracy - base.accuracy) for accuracy in accuracies]
        points = [f"{change:+.2f}" if math.isfinite(change) else "-" for change in changes]
        profiles, whole = [row.profile for row in self.rows], base.profile
        return {
            "Test accuracy": _aligned([percent(accuracy, 2) for accuracy in accuracies], points),
            "Parameters": _compared([p.parameters for p in profiles], whole.parameters, in_units),
            "Non-zeros": _compared([p.nonzeros for p in profiles], whole.nonzeros, in_units),
            "MACs": _compared([p.macs for p in profiles], whole.macs, in_units),
            "Bytes": _compared([p.bytes for p in profiles], whole.bytes, _bytes),
            "Latency": _compared([p.latency_ms for p in profiles], whole.latency_ms, milliseconds),
        }

    def _caption(self) -> str:
        threads = "/".join(map(str, sorted({row.profile.threads for row in self.rows})))
        batch = "/".join(map(str, sorted({row.profile.batch_size for row in self.rows})))
        return (
            f"\nLatency: median forward pass, batch size {batch}, CPU threads {threads}. "
            "MACs: multiply-accumulates of conv and linear layers, one image. "
            f"Second numbers: share of {reference(self.rows).name}; of accuracy, the change in points."
            + " Of the exported file bytes and latency are its own, the counts those of the network."
            * any(row.name == EXPORTED for row in self.rows)
        )


def _compared(numbers: Sequence[float], base: float, text: Callable[[float], str]) -> list[tuple[str, str]]:
    return _aligned([text(number) for number in numbers], [_ratio(number, base) for number in numbers])


def _aligned(numbers: Sequence[str], notes: Sequence[str]) -> list[tuple[str, str]]:
    width = max(map(len, notes))
    return [(number, note.rjust(width)) for number, note in zip(numbers, notes, strict=True)]


def in_units(number: float) -> str:
    """Return a count in billions, millions or thousands."""
    for size, unit, start in ((1e9, "G", 1e9), (1e6, "M", 1e5), (1e3, "K", 1e3)):
        if number >= start:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def _bytes(number: float) -> str:
    for power, unit, start in ((30, "GiB", 2**30), (20, "MiB", 1e5), (10, "KiB", 2**10)):
        if number >= start:
            return f"{number / 2**power:.2f} {unit}"
    return f"{number:.0f} B"


def milliseconds(number: float) -> str:
    """Return a time, or a dash where there is none."""
    return f"{number:.2f} ms" if math.isfinite(number) else "-"


def _ratio(number: float, reference: float) -> str:
    ratio = number / reference if reference else math.nan
    return percent(ratio, 0 if ratio >= 0.095 else 1)


# The summary of a run -------------------------------------------------------------------------------------------------


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
