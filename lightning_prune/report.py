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
from lightning_prune.plots import Curves, Point, draw_curves, draw_sweep, percent
from lightning_prune.profiling import Profile

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"


@dataclass(frozen=True)
class Row:
    """Hold what is reported of one model.

    Attributes:
        name: Which model: `"dense"`, `"masked"`, `"slim"` or another.
        accuracy: Test accuracy, in [0, 1]; NaN where it is not known.
        profile: What the model costs.
    """

    name: str
    accuracy: float
    profile: Profile


# Curves of one run ----------------------------------------------------------------------------------------------------


def read_metrics(run_folder: Path) -> Curves:
    """Return what a run logged by metric, then by the number of epochs finished: `curves["val/accuracy"][3]`.

    Of several values in one epoch the last counts. Test metrics are left out: they belong to no epoch.

    Args:
        run_folder: Holds `csv/version_*/metrics.csv`. A resumed run writes a new version and repeats what came after
            its checkpoint, so of earlier versions only the epochs before its first one count.

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
        curves = {name: {epoch: v for epoch, v in points.items() if epoch < start} for name, points in curves.items()}
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


def plot_curves(run_folder: Path, rows: Sequence[Row] = (), *, hard_from_epoch: int | None = None) -> Path:
    """Draw `curves.png` into a run folder: accuracy, sparsity and remaining MACs over the epochs.

    Args:
        run_folder: See `read_metrics`.
        rows: Models whose test accuracy is stated.
        hard_from_epoch: Epochs finished when the masks are fixed; the rest of the run is shaded.

    Raises:
        InputError: If the folder has no logged metrics, or none of those that are drawn.
    """
    accuracies = {row.name: row.accuracy for row in rows}
    path = run_folder / "curves.png"
    curves = read_metrics(run_folder)
    draw_curves(curves, _title(run_folder), accuracies=accuracies, hard_from_epoch=hard_from_epoch).savefig(path)
    return path


def _title(folder: Path) -> str:
    return "/".join(folder.resolve().parts[-2:])


# The table at the end of a run ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EndTable:
    """Render models as lines of a table, each number with its ratio to the first model's.

    Ratios stand beside the numbers where the console is wide enough, below them otherwise.

    Args:
        rows: At least one model; the first is what the others are compared with.
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
        accuracies = [row.accuracy for row in self.rows]
        changes = [100 * (accuracy - accuracies[0]) for accuracy in accuracies]
        points = [f"{change:+.2f}" if math.isfinite(change) else "-" for change in changes]
        profiles = [row.profile for row in self.rows]
        return {
            "Test accuracy": _aligned([percent(accuracy, 2) for accuracy in accuracies], points),
            "Parameters": _compared([p.parameters for p in profiles], _count),
            "Non-zeros": _compared([p.nonzeros for p in profiles], _count),
            "MACs": _compared([p.macs for p in profiles], _count),
            "Bytes": _compared([p.bytes for p in profiles], _bytes),
            "Latency": _compared([p.latency_ms for p in profiles], _milliseconds),
        }

    def _caption(self) -> str:
        threads = "/".join(map(str, sorted({row.profile.threads for row in self.rows})))
        batch = "/".join(map(str, sorted({row.profile.batch_size for row in self.rows})))
        return (
            f"\nLatency: median forward pass, batch size {batch}, CPU threads {threads}. "
            "MACs: multiply-accumulates of conv and linear layers, one image. "
            f"Second numbers: share of {self.rows[0].name}; of accuracy, the change in points."
        )


def _compared(numbers: Sequence[float], text: Callable[[float], str]) -> list[tuple[str, str]]:
    return _aligned([text(number) for number in numbers], [_ratio(number, numbers[0]) for number in numbers])


def _aligned(numbers: Sequence[str], notes: Sequence[str]) -> list[tuple[str, str]]:
    width = max(map(len, notes))
    return [(number, note.rjust(width)) for number, note in zip(numbers, notes, strict=True)]


def _count(number: float) -> str:
    for size, unit, start in ((1e9, "G", 1e9), (1e6, "M", 1e5), (1e3, "K", 1e3)):
        if number >= start:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def _bytes(number: float) -> str:
    for power, unit, start in ((30, "GiB", 2**30), (20, "MiB", 1e5), (10, "KiB", 2**10)):
        if number >= start:
            return f"{number / 2**power:.2f} {unit}"
    return f"{number:.0f} B"


def _milliseconds(number: float) -> str:
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


# A sweep --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """Hold one job of a sweep.

    Attributes:
        name: Its folder's name, a number unless Hydra was told otherwise.
        settings: The strategy and the overrides, by key.
        numbers: What came out, by name; nothing if there is a problem.
        problem: Why nothing came out, or "".
    """

    name: str
    settings: dict[str, str]
    numbers: dict[str, float]
    problem: str


def sweep_report(sweep_folder: Path) -> Table:
    """Compare the jobs of a sweep; write `sweep.csv` and, once a job has finished, `sweep.png` into its folder.

    Args:
        sweep_folder: Every folder in it is a job, those without `summary.json` too; see `write_summary`.

    Returns:
        One line a job, with the settings that differ between jobs.

    Raises:
        InputError: If there is no folder in `sweep_folder`.
    """
    folders = [path for path in sweep_folder.glob("[!.]*") if path.is_dir()]
    if not folders:
        raise InputError(f"expected a sweep folder with one folder a job, got {sweep_folder}")
    # Numbers by their size, 9 before 10.
    jobs = sorted(map(_read_job, folders), key=lambda job: (not job.name.isdigit(), len(job.name), job.name))
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job.settings) if len(_values(jobs, key)) > 1]
    _write_csv(sweep_folder / "sweep.csv", jobs, keys)
    _draw(sweep_folder, jobs, keys)
    return _sweep_table(jobs, keys)


def _read_job(folder: Path) -> Job:
    file = folder / "summary.json"
    try:
        summary = read_summary(file)
    except InputError:
        problem = "unreadable summary.json" if file.exists() else "failed or unfinished"
        return Job(folder.name, _settings({"overrides": _hydra_overrides(folder)}), {}, problem)
    rows = {row.name: row for row in summary.rows}
    if not rows.keys() >= {"dense", "slim"}:
        return Job(folder.name, _settings(summary.extra), {}, "no dense and slim model in summary.json")
    dense, slim = rows["dense"], rows["slim"]
    numbers = {
        "accuracy_dense": dense.accuracy,
        "accuracy_slim": slim.accuracy,
        "macs": slim.profile.macs,
        "macs_ratio": slim.profile.macs / max(1, dense.profile.macs),
        "parameters": slim.profile.parameters,
        "parameters_ratio": slim.profile.parameters / max(1, dense.profile.parameters),
        "latency_ms": slim.profile.latency_ms,
    }
    return Job(folder.name, _settings(summary.extra), numbers, "")


def _settings(extra: Mapping[str, Any]) -> dict[str, str]:
    strategy = extra.get("strategy", ())
    names = [strategy] if isinstance(strategy, str) else strategy
    overrides = (override.lstrip("+").split("=", 1) for override in extra.get("overrides", ()) if "=" in override)
    return ({"strategy": "+".join(names)} if names else {}) | dict(overrides)


def _hydra_overrides(folder: Path) -> list[str]:
    """Return the overrides that Hydra noted when the job began."""
    file = folder / ".hydra" / "overrides.yaml"
    # One `- key=value` a line.
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.removeprefix("- ").strip("'\"") for line in lines]


def _values(jobs: Sequence[Job], key: str) -> set[str]:
    return {job.settings[key] for job in jobs if key in job.settings}


def _write_csv(path: Path, jobs: Sequence[Job], keys: Sequence[str]) -> None:
    names = list(dict.fromkeys(name for job in jobs for name in job.numbers))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, *names, "problem"])
        for job in jobs:
            numbers = [job.numbers.get(name, math.nan) for name in names]
            cells = ["" if math.isnan(number) else number for number in numbers]
            writer.writerow([job.name, *(job.settings.get(key, "") for key in keys), *cells, job.problem])


def _draw(sweep_folder: Path, jobs: Sequence[Job], keys: Sequence[str]) -> None:
    drawn = [job for job in jobs if math.isfinite(job.numbers.get("accuracy_slim", math.nan))]
    if not drawn:
        return
    keys = [key for key in keys if _short(key) != "seed"]
    # One key alone is better told by labels than by colours: it moves along the curve, as the sparsity does.
    by_color = min(keys, key=lambda key: (key != "strategy", len(_values(jobs, key))), default="")
    legend = by_color if len(keys) > 1 or by_color == "strategy" else ""
    labels = [key for key in keys if key != legend]
    points = [
        Point(
            series=job.settings.get(legend, ""),
            setting=", ".join(job.settings.get(key, "") for key in labels),
            macs=job.numbers["macs_ratio"],
            accuracy=job.numbers["accuracy_slim"],
        )
        for job in drawn
    ]
    dense = [accuracy for job in drawn if math.isfinite(accuracy := job.numbers["accuracy_dense"])]
    subtitle = f"finished jobs: {len(drawn)} of {len(jobs)}" + ("     labels: " if labels else "")
    figure = draw_sweep(
        points,
        _title(sweep_folder),
        subtitle + ", ".join(map(_short, labels)),
        legend=_short(legend),
        baseline=sum(dense) / len(dense) if dense else None,
    )
    figure.savefig(sweep_folder / "sweep.png")


def _short(key: str) -> str:
    return key.split(".")[-1]


def _sweep_table(jobs: Sequence[Job], keys: Sequence[str]) -> Table:
    caption = "\nDense and slim: test accuracy. MACs, parameters (share of dense) and latency are the slim model's."
    caption += "".join(f"\nJob {job.name} has no result: {job.problem}." for job in jobs if job.problem)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, caption_justify="left")
    table.caption = Text(caption)
    table.add_column("Job", justify="right", no_wrap=True)
    for key in keys:
        table.add_column(Text(_short(key)), justify="right", overflow="fold")
    for heading in ("Dense", "Slim", "MACs", "Params", "Latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for job in jobs:
        # As texts, because a strategy such as [sfp,kd] would be read as markup.
        settings = [Text(job.settings.get(key, "")) for key in keys]
        results = _results(job.numbers) if job.numbers else ["-"] * 5
        table.add_row(Text(job.name), *settings, *results, style="red" if job.problem else "")
    return table


def _results(numbers: Mapping[str, float]) -> list[Text]:
    """Return the cells from the dense accuracy on."""
    return [
        Text(percent(numbers["accuracy_dense"], 2)),
        Text(percent(numbers["accuracy_slim"], 2)),
        Text.assemble(_count(numbers["macs"]), (f"{percent(numbers['macs_ratio'], 0):>7}", "dim")),
        Text(percent(numbers["parameters_ratio"], 0)),
        Text(_milliseconds(numbers["latency_ms"])),
    ]
