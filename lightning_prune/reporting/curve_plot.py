"""The picture of a run: its metric, and what pruning leaves, over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.reporting.curve_panels import (
    Curve,
    Panel,
    Points,
    layers_left,
    panels_of,
    prunes_weights,
)
from lightning_prune.reporting.metrics import Curves, read_metrics
from lightning_prune.reporting.number_formats import four_digits, percent
from lightning_prune.reporting.plot_style import DPI, GREY, INK, show_six_points, style_panel, write_heading
from lightning_prune.reporting.rows import EXPORTED, Metric, Row
from lightning_prune.reporting.run_folder import RunFolder

if TYPE_CHECKING:  # drawing alone needs it, and whoever imports this package may not draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_NAMED_LAYERS = 40
"""How many layers are named at most; of more every second, third ... one is."""


def plot_curves(
    run_folder: Path, rows: Sequence[Row], metric: Metric, *, hard_from_epoch: float | None = None
) -> Path | None:
    """Draw `curves.png` into a run folder: the metric over the epochs, and what pruning leaves.

    What a fine-tuning logged stands behind the epochs of the training.

    Args:
        run_folder: See `read_metrics`.
        rows: Models whose scores are stated.
        metric: Of these.
        hard_from_epoch: Epochs, not always whole, after which the masks are final; the rest of the training is shaded.

    Returns:
        The picture; None where nothing was logged that it could show.

    Raises:
        InputError: If the folder has no logged metrics.
    """
    scores = {row.name: row.score for row in rows if row.name != EXPORTED}  # which is the last one again
    folder = RunFolder(run_folder)
    curves = read_metrics(run_folder)
    tuned = read_metrics(folder.finetuning.path) if folder.finetuning.metrics else {}
    figure = draw_curves(curves, folder.title, metric, scores=scores, tuned=tuned, hard_from_epoch=hard_from_epoch)
    if figure is None:
        return None
    figure.savefig(folder.curves)
    return folder.curves


def draw_curves(
    curves: Curves,
    title: str,
    metric: Metric,
    *,
    scores: Mapping[str, float],
    tuned: Curves | None = None,
    hard_from_epoch: float | None = None,
) -> Figure | None:
    """Draw a metric, and below it what pruning leaves, over the epochs.

    Where single weights are pruned, the picture shows the weights that are left, of every layer too.

    Args:
        curves: What was logged; what was not is left out, and so is a panel without any line.
        title: Heading, usually the run.
        metric: What is drawn of training and validation, or the loss where it was logged of neither.
        scores: Of the metric by model, stated beside the heading; the fine-tuned model is the last one.
        tuned: What its fine-tuning logged, by its own epochs.
        hard_from_epoch: Epochs, not always whole, after which the masks are final; the rest of the training is shaded.

    Returns:
        The picture; None if there is nothing to draw.
    """
    last = max((epoch for points in curves.values() for epoch in points), default=0)
    later = {name: {last + epoch: v for epoch, v in points.items()} for name, points in (tuned or {}).items()}
    panels = panels_of(curves, later, metric)
    if not panels:
        return None
    layers = layers_left(curves) if prunes_weights(curves) else {}
    figure, grid = _figure(panels, layers)
    for axes, panel in zip(grid, panels, strict=False):  # the layers have one more
        _draw_panel(axes, panel)
    if layers:
        _draw_layers(figure, grid[-1], layers)
    grid[-1].set_xlabel("epochs finished", color=INK)
    epochs = [epoch for panel in panels for curve in panel.curves for epoch in (*curve.points, *curve.tuned)]
    # A cell of the layers reaches back to the epoch before.
    _set_epochs(grid, [*epochs, min(epochs) - 1] if layers else epochs)
    is_tuned = max(epochs) > last
    if hard_from_epoch is not None:
        _shade(grid[: len(panels)], hard_from_epoch, last if is_tuned else None)
    if is_tuned:
        _divide(grid, last, [*scores][-1] if scores else "fine-tuned")
    shares = metric.in_percent(scores.values())
    stated = "     ".join(f"{name} {_written(value, 2, in_percent=shares)}" for name, value in scores.items())
    write_heading(figure, title, f"{metric.heading.lower()}     {stated}" if stated else "")
    return figure


def _figure(panels: Sequence[Panel], layers: Mapping[str, Points]) -> tuple[Figure, list[Axes]]:
    """Return a figure with its panels, one more for layers."""
    from matplotlib.figure import Figure

    heights = [3.0, 2.0][: len(panels)] + ([min(5.0, 0.6 + 0.13 * len(layers))] if layers else [])
    figure = Figure(figsize=(8, 1.6 + 0.84 * sum(heights)), dpi=DPI, layout="constrained")
    grid = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    return figure, [*grid[:, 0]]


def _draw_panel(axes: Axes, panel: Panel) -> None:
    style_panel(axes, panel.heading, in_percent=panel.in_percent)
    for curve in panel.curves:
        for points in filter(None, (curve.points, curve.tuned)):
            _draw_line(axes, points, curve)
    if panel.is_whole:
        axes.set_ylim(0, 1)
    elif panel.in_percent:
        show_six_points(axes)
    _label_ends(axes, panel)


def _draw_line(axes: Axes, points: Points, curve: Curve) -> None:
    # Few points need markers: one alone, or one between two NaNs, would have no line at all.
    marker = "o" if len(points) <= 30 else ""
    (drawn,) = axes.plot(list(points), list(points.values()), curve.dashes, color=curve.color, clip_on=False, zorder=3)
    drawn.set(linewidth=curve.width, marker=marker, markersize=curve.width + 1.5)


def _label_ends(axes: Axes, panel: Panel) -> None:
    """Write name and last value of each line beside its end, apart from each other."""
    bottom, top = axes.get_ylim()
    ends = [curve.values[-1] for curve in panel.curves]
    # In a share of the panel's height; the lower panel is the smaller one.
    heights = spread([(end - bottom) / (top - bottom) for end in ends], gap=0.12)
    for curve, end, height in zip(panel.curves, ends, heights, strict=True):
        text = f"{_written(end, 1, in_percent=panel.in_percent)}  {curve.label}"
        axes.text(1.012, height, text, color=curve.color, transform=axes.transAxes, va="center", weight="bold")


def _draw_layers(figure: Figure, axes: Axes, layers: Mapping[str, Points]) -> None:
    """Draw the share of weights that is left in each layer, a row for each, as colours over the epochs."""
    from matplotlib.ticker import PercentFormatter

    axes.set_title("Non-zero weights left in each layer", loc="left", fontsize=10, color=INK)
    epochs = sorted({epoch for points in layers.values() for epoch in points})
    rows = [[points.get(epoch, float("nan")) for epoch in epochs] for points in layers.values()]
    # What is known of an epoch fills it up to its end, where the lines above have their points.
    edges = [epochs[0] - 1, *epochs]
    drawn = axes.pcolormesh(edges, [*range(len(layers) + 1)], rows, cmap="viridis", vmin=0, vmax=1)
    every = -(-len(layers) // _NAMED_LAYERS)
    names = list(layers)[::every]
    axes.set_yticks([0.5 + every * number for number in range(len(names))], names, fontsize=7, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    beside = axes.inset_axes((1.012, 0, 0.02, 1))
    bar = figure.colorbar(drawn, cax=beside, format=PercentFormatter(1, symbol=" %"))
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)


def _written(value: float, digits: int, *, in_percent: bool) -> str:
    return percent(value, digits) if in_percent else four_digits(value)


def _set_epochs(grid: Sequence[Axes], epochs: Sequence[int]) -> None:
    first, last = min(epochs), max(epochs)
    margin = 0.012 * (last - first) or 0.5
    grid[0].set_xlim(first - margin, last + margin)
    from matplotlib.ticker import MaxNLocator

    grid[0].xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _divide(grid: Sequence[Axes], last: int, name: str) -> None:
    """Draw where the training ended, and name what came after it."""
    for axes in grid:
        axes.axvline(last, color=GREY, lw=1, ls=(0, (2, 3)), zorder=1)
    place = grid[0].get_xaxis_transform()
    grid[0].text(last, 1.03, f" {name}", transform=place, fontsize=9, color="#444444", parse_math=False)


def _shade(grid: Sequence[Axes], start: float, end: int | None) -> None:
    """Shade the epochs with final masks, up to the end of the training or that of the picture."""
    left, right = grid[0].get_xlim()
    right = right if end is None else end
    if start > right:
        return
    for axes in grid:
        axes.axvspan(max(start, left), right, color="#F0E442", alpha=0.28, lw=0, zorder=0)
    place = grid[0].get_xaxis_transform()
    grid[0].text(right, 1.03, "masks fixed ", transform=place, ha="right", fontsize=9, color="#7A6F00")


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
