"""Tables and pictures of the jobs of a sweep, from the files in its folder."""

import csv
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightning_prune.errors import InputError
from lightning_prune.reporting.number_formats import change_text, milliseconds, percent, score_text
from lightning_prune.reporting.rows import BASELINE, EXPORTED, Metric, reference
from lightning_prune.reporting.run_folder import RunFolder, SweepFolder
from lightning_prune.reporting.summary import read_summary
from lightning_prune.reporting.sweep_plot import Point, draw_sweep


@dataclass(frozen=True)
class Job:
    """Hold one job of a sweep.

    Attributes:
        name: Its folder's name, a number unless Hydra was told otherwise.
        settings: The strategy and the overrides, by key.
        metric: By which its models are judged; None if there is a problem.
        numbers: What came out, by name; nothing if there is a problem.
        problem: Why nothing came out, or "".
    """

    name: str
    settings: dict[str, str]
    metric: Metric | None
    numbers: dict[str, float]
    problem: str

    def number(self, name: str) -> float:
        """Return a number, or NaN where there is none."""
        return self.numbers.get(name, math.nan)


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
    metric = next((job.metric for job in jobs if job.metric is not None), Metric("accuracy", "max"))
    jobs = [_judged_by(metric, job) for job in jobs]
    keys = [key for key in dict.fromkeys(key for job in jobs for key in job.settings) if len(_values(jobs, key)) > 1]
    _write_csv(folder.table, jobs, keys, metric)
    _draw(folder, jobs, keys, metric)
    return _sweep_table(jobs, keys, metric)


def _read_job(folder: RunFolder) -> Job:
    name, file = folder.path.name, folder.summary
    try:
        summary = read_summary(file)
    except InputError:
        problem = f"unreadable {file.name}" if file.exists() else "failed or unfinished"
        return Job(name, _settings({"overrides": _overrides(folder.hydra_overrides)}), None, {}, problem)
    # The last model has the channels that are left, fine-tuned or not: all of them where nothing was pruned.
    last = [row for row in summary.rows if row.name != EXPORTED][-1]
    whole, slim = reference(summary.rows).profile, last.profile
    baseline = next((row.score for row in summary.rows if row.name == BASELINE), math.nan)
    numbers = {
        "baseline": baseline,
        "slim": last.score,
        "change": last.score - baseline,
        "macs": slim.macs,
        "macs_ratio": slim.macs / (whole.macs or math.nan),
        "parameters": slim.parameters,
        "parameters_ratio": slim.parameters / max(1, whole.parameters),
        "nonzeros": slim.nonzeros,
        "nonzeros_ratio": slim.nonzeros / max(1, whole.parameters),
        "latency_ms": slim.latency_ms,
        "latency_low_ms": slim.latency_low_ms,
        "latency_high_ms": slim.latency_high_ms,
        "latency_noisy": slim.noisy,
    }
    return Job(name, _settings(summary.extra), summary.metric, numbers, "")


def _judged_by(metric: Metric, job: Job) -> Job:
    """Return a job as it is, or without numbers that are not those of the metric."""
    if job.metric in (metric, None):
        return job
    return replace(job, metric=None, numbers={}, problem=f"judged by {job.metric.heading.lower()}")


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


def _write_csv(path: Path, jobs: Sequence[Job], keys: Sequence[str], metric: Metric) -> None:
    names = list(dict.fromkeys(name for job in jobs for name in job.numbers))
    scores = {name: f"{metric.name}_{name}" for name in ("baseline", "slim", "change")}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, *(scores.get(name, name) for name in names), "problem"])
        for job in jobs:
            numbers = [job.number(name) for name in names]
            cells = ["" if math.isnan(number) else number for number in numbers]
            writer.writerow([job.name, *(job.settings.get(key, "") for key in keys), *cells, job.problem])


def _draw(folder: SweepFolder, jobs: Sequence[Job], keys: Sequence[str], metric: Metric) -> None:
    # What single weights lose does not show in MACs, but for a channel that happens to lose all of its own.
    cost = "macs_ratio" if any(job.number("macs_ratio") < 0.9 for job in jobs) else "nonzeros_ratio"
    drawn = [job for job in jobs if math.isfinite(job.number("slim")) and math.isfinite(job.number(cost))]
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
            cost=job.number(cost),
            score=job.number("slim"),
            baseline=job.number("baseline"),
        )
        for job in drawn
    ]
    subtitle = f"finished jobs: {len(drawn)} of {len(jobs)}" + ("     labels: " if labels else "")
    figure = draw_sweep(
        points,
        folder.title,
        subtitle + ", ".join(map(_short, labels)),
        metric=metric,
        cost="MACs" if cost == "macs_ratio" else "non-zero parameters",
        legend=_short(legend),
    )
    figure.savefig(folder.picture)


def _short(key: str) -> str:
    return key.split(".")[-1]


def _sweep_table(jobs: Sequence[Job], keys: Sequence[str], metric: Metric) -> Table:
    finished = [job for job in jobs if job.numbers]
    shares = metric.in_percent(job.number(name) for job in finished for name in ("baseline", "slim"))
    # One baseline of all is told below the table, where it takes no room.
    baselines = {score_text(job.number("baseline"), in_percent=shares) for job in finished}
    columns: dict[str, Callable[[Job], str]] = {
        "Baseline": lambda job: score_text(job.number("baseline"), in_percent=shares),
        "Slim": lambda job: score_text(job.number("slim"), in_percent=shares),
        "Change": lambda job: change_text(job.number("slim"), job.number("baseline"), in_percent=shares),
        "MACs": lambda job: percent(job.number("macs_ratio"), 0),
        "Params": lambda job: percent(job.number("parameters_ratio"), 0),
        "Non-zero": lambda job: percent(job.number("nonzeros_ratio"), 1),
        "Latency": lambda job: "~" * bool(job.numbers["latency_noisy"]) + milliseconds(job.number("latency_ms")),
    }
    if len(baselines) < 2:
        del columns["Baseline"]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, caption_justify="left")
    table.caption = Text(_caption(jobs, metric, baselines, in_percent=shares))
    table.add_column("Job", justify="right", no_wrap=True)
    for key in keys:
        table.add_column(Text(_short(key)), justify="right", overflow="fold")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for job in jobs:
        # As texts, because a strategy such as [sfp,kd] would be read as markup.
        settings = [Text(job.settings.get(key, "")) for key in keys]
        results = [Text(cell(job) if job.numbers else "-") for cell in columns.values()]
        table.add_row(Text(job.name), *settings, *results, style="red" if job.problem else "")
    return table


def _caption(jobs: Sequence[Job], metric: Metric, baselines: Collection[str], *, in_percent: bool) -> str:
    """Return what stands below the table.

    Args:
        jobs: All of them.
        metric: By which they are judged.
        baselines: The different scores of their baselines, as texts.
        in_percent: Whether scores are shares.
    """
    less = ", the less the better" * (metric.mode == "min")
    told = {
        f"{metric.heading}{less}: that of the slim model, after fine-tuning if there was any.": True,
        f"Change: {'in points ' * in_percent}from the baseline, which was trained without compression.": True,
        f"The baseline of all: {', '.join(baselines)}.": len(baselines) == 1 and "-" not in baselines,
        "No job knows its baseline.": baselines == {"-"},
        "MACs, parameters and non-zeros: the slim model's, as shares of the network before anything was pruned.": True,
        "Latency: the slim model's.": True,
        "~: noisy, its quartiles lie far apart.": any(job.number("latency_noisy") == 1 for job in jobs),
    }
    problems = [f"\nJob {job.name} has no result: {job.problem}." for job in jobs if job.problem]
    return "\n" + " ".join(text for text, applies in told.items() if applies) + "".join(problems)
