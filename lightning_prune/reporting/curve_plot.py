"""The picture of a run: accuracy, and what pruning leaves, over the epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.errors import InputError
from lightning_prune.reporting.metrics import Curves, read_metrics
from lightning_prune.reporting.number_formats import percent
from lightning_prune.reporting.plot_style import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    VERMILLION,
    show_six_points,
    style_panel,
    write_heading,
)
from lightning_prune.reporting.rows import EXPORTED, Metric, Row
from lightning_prune.reporting.run_folder import RunFolder

if TYPE_CHECKING:  # drawing alone needs it, and whoever imports this package may not draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Line:
    metric: str
    label: str
    color: str
    width: float
    dashes: str = "-"


# What comes last is drawn on top; dashes let a line through that lies under them.
_PANELS = {
    "Accuracy": (_Line("train/accuracy", "training", GREY, 1.4), _Line("val/accuracy", "validation", BLUE, 2.6)),
    "Zero weights and remaining MACs": (
        _Line("sparsity/total", "zero weights", VERMILLION, 2.2),
        _Line("macs/ratio", "MACs left", GREEN, 2.2, "--"),
    ),
}


def plot_curves(run_folder: Path, rows: Sequence[Row], metric: Metric, *, hard_from_epoch: float | None = None) -> Path:
    """Draw `curves.png` into a run folder: accuracy, sparsity and remaining MACs over the epochs.

    Args:
        run_folder: See `read_metrics`.
        rows: Models whose scores are stated.
        metric: Of these.
        hard_from_epoch: Epochs, not always whole, after which the masks are final; the rest of the run is shaded.

    Raises:
        InputError: If the folder has no logged metrics, or none of those that are drawn.
    """
    scores = {row.name: row.score for row in rows if row.name != EXPORTED}  # which is the last one again
    folder = RunFolder(run_folder)
    figure = draw_curves(read_metrics(run_folder), folder.title, metric, scores=scores, hard_from_epoch=hard_from_epoch)
    figure.savefig(folder.curves)
    return folder.curves


def draw_curves(
    curves: Curves, title: str, metric: Metric, *, scores: Mapping[str, float], hard_from_epoch: float | None = None
) -> Figure:
    """Draw accuracy, and below it what pruning leaves, over the epochs.

    Args:
        curves: Fractions in [0, 1]; what was not logged is left out, and so is a panel without any line.
        title: Heading, usually the run.
        metric: What the scores are of.
        scores: By model, stated beside the heading.
        hard_from_epoch: Epochs, not always whole, after which the masks are final; the rest of the run is shaded.

    Raises:
        InputError: If there is nothing to draw.
    """
    known = {name: points for name, points in curves.items() if any(map(math.isfinite, points.values()))}
    panels = {heading: [line for line in lines if line.metric in known] for heading, lines in _PANELS.items()}
    panels = {heading: lines for heading, lines in panels.items() if lines}
    if not panels:
        wanted = ", ".join(line.metric for lines in _PANELS.values() for line in lines)
        raise InputError(f"expected finite values of one of {wanted}, got {', '.join(curves) or 'no metrics'}")
    count = len(panels)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.6 + 2.1 * count), dpi=DPI, layout="constrained")
    grid: list[Axes] = [*figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[:count])[:, 0]]
    for axes, (heading, lines) in zip(grid, panels.items(), strict=True):
        style_panel(axes, heading)
        for line in lines:
            _draw_line(axes, known[line.metric], line)
        if heading == "Accuracy":
            show_six_points(axes)
        else:
            axes.set_ylim(0, 1)
        _label_ends(axes, [(known[line.metric], line) for line in lines])
    grid[-1].set_xlabel("epochs finished", color=INK)
    _set_epochs(grid, [epoch for lines in panels.values() for line in lines for epoch in known[line.metric]])
    if hard_from_epoch is not None:
        _shade(grid, hard_from_epoch)
    stated = "     ".join(f"{name} {percent(value, 2)}" for name, value in scores.items())
    write_heading(figure, title, f"{metric.heading.lower()}     {stated}" if stated else "")
    return figure


def _draw_line(axes: Axes, points: Mapping[int, float], line: _Line) -> None:
    # Few points need markers: one alone, or one between two NaNs, would have no line at all.
    marker = "o" if len(points) <= 30 else ""
    (drawn,) = axes.plot(list(points), list(points.values()), line.dashes, color=line.color, clip_on=False, zorder=3)
    drawn.set(linewidth=line.width, marker=marker, markersize=line.width + 1.5)


def _label_ends(axes: Axes, lines: Sequence[tuple[Mapping[int, float], _Line]]) -> None:
    """Write name and last value of each line beside its end, apart from each other."""
    bottom, top = axes.get_ylim()
    ends = [[value for value in points.values() if math.isfinite(value)][-1] for points, _ in lines]
    # In a share of the panel's height; the lower panel is the smaller one.
    heights = spread([(end - bottom) / (top - bottom) for end in ends], gap=0.12)
    for (_, line), end, height in zip(lines, ends, heights, strict=True):
        text = f"{percent(end, 1)}  {line.label}"
        axes.text(1.012, height, text, color=line.color, transform=axes.transAxes, va="center", weight="bold")


def _set_epochs(grid: Sequence[Axes], epochs: Sequence[int]) -> None:
    first, last = min(epochs), max(epochs)
    margin = 0.012 * (last - first) or 0.5
    grid[0].set_xlim(first - margin, last + margin)
    from matplotlib.ticker import MaxNLocator

    grid[0].xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _shade(grid: Sequence[Axes], start: float) -> None:
    left, right = grid[0].get_xlim()
    if start > right:
        return
    for axes in grid:
        axes.axvspan(max(start, left), right, color="#F0E442", alpha=0.28, lw=0, zorder=0)
    grid[0].text(1, 1.03, "masks fixed", transform=grid[0].transAxes, ha="right", fontsize=9, color="#7A6F00")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart until neighbours differ by `gap`, in the same order and around the same mean.

    >>> spread([0.5, 0.5], gap=0.2)
    [0.4, 0.6]
    """
    placed: list[tuple[int, float]] = []
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        placed.append((index, max(heights[index], placed[-1][1] + gap) if placed else heights[index]))
    shift = (sum(heights) - sum(height for _, height in placed)) / len(heights)
    return [height + shift for _, height in sorted(placed)]
