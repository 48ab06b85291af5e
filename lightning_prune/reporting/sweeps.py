"""Tables and pictures of the jobs of a sweep, from the files in its folder."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_prune.errors import InputError
from lightning_prune.reporting.number_formats import milliseconds, percent, short_count
from lightning_prune.reporting.rows import BASELINE, EXPORTED, reference
from lightning_prune.reporting.run_folder import RunFolder, SweepFolder
from lightning_prune.reporting.summary import read_summary
from lightning_prune.reporting.sweep_plot import Point, draw_sweep


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
    folder = SweepFolder(sweep_folder)
    jobs = [_read_job(job) for job in folder.jobs]
    if not jobs:
        raise InputError(f"expected a sweep folder with one folder a job, got {sweep_folder}")
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job.settings) if len(_values(jobs, key)) > 1]
    _write_csv(folder.table, jobs, keys)
    _draw(folder, jobs, keys)
    return _sweep_table(jobs, keys)


def _read_job(folder: RunFolder) -> Job:
    name, file = folder.path.name, folder.summary
    try:
        summary = read_summary(file)
    except InputError:
        problem = f"unreadable {file.name}" if file.exists() else "failed or unfinished"
        return Job(name, _settings({"overrides": _overrides(folder.hydra_overrides)}), {}, problem)
    # The last model has the channels that are left, fine-tuned or not: all of them where nothing was pruned.
    last = [row for row in summary.rows if row.name != EXPORTED][-1]
    whole, slim = reference(summary.rows).profile, last.profile
    numbers = {
        "accuracy_dense": next((row.score for row in summary.rows if row.name == BASELINE), math.nan),
        "accuracy_slim": last.score,
        "macs": slim.macs,
        "macs_ratio": slim.macs / max(1, whole.macs),
        "parameters": slim.parameters,
        "parameters_ratio": slim.parameters / max(1, whole.parameters),
        "nonzeros": slim.nonzeros,
        "nonzeros_ratio": slim.nonzeros / max(1, whole.parameters),
        "latency_ms": slim.latency_ms,
    }
    return Job(name, _settings(summary.extra), numbers, "")


def _settings(extra: Mapping[str, Any]) -> dict[str, str]:
    strategy = extra.get("strategy", ())
    names = [strategy] if isinstance(strategy, str) else strategy
    overrides = (override.lstrip("+").split("=", 1) for override in extra.get("overrides", ()) if "=" in override)
    return ({"strategy": "+".join(names)} if names else {}) | dict(overrides)


def _overrides(file: Path) -> list[str]:
    """Return the overrides that Hydra noted when the job began."""
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


def _draw(folder: SweepFolder, jobs: Sequence[Job], keys: Sequence[str]) -> None:
    drawn = [job for job in jobs if math.isfinite(job.numbers.get("accuracy_slim", math.nan))]
    if not drawn:
        return
    keys = [key for key in keys if _short(key) != "seed"]
    # One key alone is better told by labels than by colours: it moves along the curve, as the sparsity does.
    by_color = min(keys, key=lambda key: (key != "strategy", len(_values(jobs, key))), default="")
    legend = by_color if len(keys) > 1 or by_color == "strategy" else ""
    labels = [key for key in keys if key != legend]
    # What single weights lose does not show in MACs, but for a channel that happens to lose all of its own.
    cost = "macs_ratio" if any(job.numbers["macs_ratio"] < 0.9 for job in drawn) else "nonzeros_ratio"
    points = [
        Point(
            series=job.settings.get(legend, ""),
            setting=", ".join(job.settings.get(key, "") for key in labels),
            cost=job.numbers[cost],
            accuracy=job.numbers["accuracy_slim"],
        )
        for job in drawn
    ]
    dense = [accuracy for job in drawn if math.isfinite(accuracy := job.numbers["accuracy_dense"])]
    subtitle = f"finished jobs: {len(drawn)} of {len(jobs)}" + ("     labels: " if labels else "")
    figure = draw_sweep(
        points,
        folder.title,
        subtitle + ", ".join(map(_short, labels)),
        cost="MACs" if cost == "macs_ratio" else "non-zero parameters",
        legend=_short(legend),
        baseline=sum(dense) / len(dense) if dense else None,
    )
    figure.savefig(folder.picture)


def _short(key: str) -> str:
    return key.split(".")[-1]


def _sweep_table(jobs: Sequence[Job], keys: Sequence[str]) -> Table:
    caption = (
        "\nDense and slim: test accuracy, the slim model's after fine-tuning if there was any; a dash where a run kept "
        "no dense model. The rest is the slim model's: MACs, also as a share of the dense model's, parameters and "
        "non-zeros as shares of the dense parameters, latency."
    )
    caption += "".join(f"\nJob {job.name} has no result: {job.problem}." for job in jobs if job.problem)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, caption_justify="left")
    table.caption = Text(caption)
    table.add_column("Job", justify="right", no_wrap=True)
    for key in keys:
        table.add_column(Text(_short(key)), justify="right", overflow="fold")
    for heading in ("Dense", "Slim", "MACs", "Params", "Non-zero", "Latency"):
        table.add_column(heading, justify="right", no_wrap=True)
    for job in jobs:
        # As texts, because a strategy such as [sfp,kd] would be read as markup.
        settings = [Text(job.settings.get(key, "")) for key in keys]
        results = _results(job.numbers) if job.numbers else ["-"] * 6
        table.add_row(Text(job.name), *settings, *results, style="red" if job.problem else "")
    return table


def _results(numbers: Mapping[str, float]) -> list[Text]:
    """Return the cells from the dense accuracy on."""
    return [
        Text(percent(numbers["accuracy_dense"], 2)),
        Text(percent(numbers["accuracy_slim"], 2)),
        Text.assemble(short_count(numbers["macs"]), (f"{percent(numbers['macs_ratio'], 0):>6}", "dim")),
        Text(percent(numbers["parameters_ratio"], 0)),
        Text(percent(numbers["nonzeros_ratio"], 1)),
        Text(milliseconds(numbers["latency_ms"])),
    ]
