"""Pictures of finished runs, drawn without pyplot and its global state."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from lightning_prune.errors import InputError

if TYPE_CHECKING:  # drawing alone needs it, and whoever imports this package may not draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Curves = dict[str, dict[int, float]]
"""Values by metric, then by the number of epochs finished."""

_DPI = 160

# The palette of Okabe and Ito, which stays distinct under every common colour blindness.
_BLUE, _VERMILLION, _GREEN, _PURPLE, _ORANGE, _SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
_GREY, _INK = "#8A8A8A", "#222222"
_SERIES = [*zip((_BLUE, _VERMILLION, _GREEN, _PURPLE, _ORANGE, _SKY), "os^DvP", strict=True)]


@dataclass(frozen=True)
class _Line:
    metric: str
    label: str
    color: str
    width: float
    dashes: str = "-"


# What comes last is drawn on top; dashes let a line through that lies under them.
_PANELS = {
    "Accuracy": (_Line("train/accuracy", "training", _GREY, 1.4), _Line("val/accuracy", "validation", _BLUE, 2.6)),
    "Zero weights and remaining MACs": (
        _Line("sparsity/total", "zero weights", _VERMILLION, 2.2),
        _Line("macs/ratio", "MACs left", _GREEN, 2.2, "--"),
    ),
}


def draw_curves(
    curves: Curves, title: str, *, accuracies: Mapping[str, float], hard_from_epoch: float | None = None
) -> Figure:
    """Draw accuracy, and below it what pruning leaves, over the epochs.

    Args:
        curves: Fractions in [0, 1]; what was not logged is left out, and so is a panel without any line.
        title: Heading, usually the run.
        accuracies: Test accuracy by model, stated beside the heading.
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

    figure = Figure(figsize=(8, 1.6 + 2.1 * count), dpi=_DPI, layout="constrained")
    grid: list[Axes] = [*figure.subplots(count, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[:count])[:, 0]]
    for axes, (heading, lines) in zip(grid, panels.items(), strict=True):
        _style(axes, heading)
        for line in lines:
            _draw_line(axes, known[line.metric], line)
        if heading == "Accuracy":
            _widen(axes)
        else:
            axes.set_ylim(0, 1)
        _label_ends(axes, [(known[line.metric], line) for line in lines])
    grid[-1].set_xlabel("epochs finished", color=_INK)
    _set_epochs(grid, [epoch for lines in panels.values() for line in lines for epoch in known[line.metric]])
    if hard_from_epoch is not None:
        _shade(grid, hard_from_epoch)
    stated = "     ".join(f"{name} {percent(value, 2)}" for name, value in accuracies.items())
    _head(figure, title, f"test accuracy     {stated}" if stated else "")
    return figure


def _draw_line(axes: Axes, points: Mapping[int, float], line: _Line) -> None:
    # Few points need markers: one alone, or one between two NaNs, would have no line at all.
    marker = "o" if len(points) <= 30 else ""
    (drawn,) = axes.plot(list(points), list(points.values()), line.dashes, color=line.color, clip_on=False, zorder=3)
    drawn.set(linewidth=line.width, marker=marker, markersize=line.width + 1.5)


def _widen(axes: Axes) -> None:
    """Show at least six points of accuracy, so that noise is not blown up."""
    bottom, top = axes.get_ylim()
    missing = max(0.0, 0.06 - (top - bottom))
    axes.set_ylim(bottom - missing / 2, top + missing / 2)


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


@dataclass(frozen=True)
class Point:
    """Hold where one job of a sweep ended.

    Attributes:
        series: What gives the colour, the strategy for example.
        setting: What else tells it from other jobs, the seed aside; labels the front.
        cost: Share of the dense model's MACs, or of another cost, that is left in the slim model.
        accuracy: Test accuracy of the slim model, in [0, 1].
    """

    series: str
    setting: str
    cost: float
    accuracy: float


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the (cost, value) pairs that no other one beats, by rising cost.

    One pair beats another if it costs no more and is worth no less, and they are not equal.

    >>> pareto_front([(2, 0.9), (1, 0.5), (3, 0.8)])
    [(1, 0.5), (2, 0.9)]
    """
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def draw_sweep(
    points: Sequence[Point], title: str, subtitle: str, *, cost: str, legend: str, baseline: float | None
) -> Figure:
    """Draw accuracy over the cost left: every job, the mean and range of equal settings, and the front of the means.

    The front is of means, because the best of several seeds flatters a setting.

    Args:
        points: One for each job, at least one.
        title: Heading, usually the sweep.
        subtitle: Small print beside the heading.
        cost: What `Point.cost` is a share of, in the plural.
        legend: What `Point.series` is.
        baseline: Accuracy of the dense model, in [0, 1]; None if it is not known.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 5.4), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    _style(axes, "Test accuracy of the slim model")
    axes.set_xlabel(f"remaining {cost} of the dense model", color=_INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.series, point.setting].append(point)
    looks = dict(zip(dict.fromkeys(point.series for point in points), cycle(_SERIES), strict=False))
    means = {
        _draw_setting(axes, same, *looks[series]): (setting, looks[series][0])
        for (series, setting), same in groups.items()
    }
    if baseline is not None:
        axes.axhline(baseline, color=_INK, lw=0.9, ls=(0, (2, 3)), zorder=1)
        axes.plot(1, baseline, "*", ms=17, color=_INK, mec="white", zorder=6)
        _annotate(axes, f"dense {percent(baseline, 2)}", (1, baseline), _INK)
    _widen(axes)
    for series, (color, marker) in looks.items():
        axes.plot([], [], marker, color=color, ms=8, mec="white", label=series or None)
    _draw_front(axes, means)
    names = axes.legend(title=legend, loc="lower right", frameon=False, alignment="left", fontsize=9)
    for text in (names.get_title(), *names.get_texts()):
        text.set_parse_math(False)
    _head(figure, title, subtitle)
    return figure


def _draw_setting(axes: Axes, same: Sequence[Point], color: str, marker: str) -> tuple[float, float]:
    """Draw the jobs of one setting as faint marks with their mean and range; return the mean."""
    costs, accuracies = [point.cost for point in same], [point.accuracy for point in same]
    x, y = sum(costs) / len(costs), sum(accuracies) / len(accuracies)
    if len(same) > 1:
        axes.plot(costs, accuracies, marker, color=color, alpha=0.4, ms=5, mec="none", zorder=3)
        axes.vlines(x, min(accuracies), max(accuracies), color=color, lw=1.4, zorder=4)
        axes.hlines(y, min(costs), max(costs), color=color, lw=1.4, zorder=4)
    axes.plot(x, y, marker, color=color, ms=8, mec="white", mew=0.8, zorder=5)
    return x, y


def _draw_front(axes: Axes, means: Mapping[tuple[float, float], tuple[str, str]]) -> None:
    front = pareto_front(list(means))
    right = max(1.03, max(x for x, _ in means) + 0.03)
    # About the width of the first label, which stands to the left of all points.
    left = front[0][0] - 0.03 - 0.011 * len(means[front[0]][0])
    axes.set_xlim(left, right)
    # The accuracy that a budget buys stays the same until the next point, and to the right of the last.
    xs, ys = [x for x, _ in front] + [right], [y for _, y in front] + [front[-1][1]]
    axes.step(xs, ys, where="post", color=_GREY, lw=1.2, zorder=2, label="Pareto front")
    for mean in front:
        # Up and to the left of a point of the front there is nothing.
        label, color = means[mean]
        _annotate(axes, label, mean, color)


def _annotate(axes: Axes, text: str, position: tuple[float, float], color: str) -> None:
    label = axes.annotate(text, position, (-6, 6), textcoords="offset points", ha="right", zorder=7, parse_math=False)
    from matplotlib import patheffects

    halo = patheffects.withStroke(linewidth=2.5, foreground="white")
    label.set(fontsize=9, color=color, path_effects=[halo])


def _style(axes: Axes, heading: str) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.set_title(heading, loc="left", fontsize=10, color=_INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(color="#E4E4E4", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#BBBBBB")
    axes.tick_params(color="#BBBBBB", labelcolor="#444444", labelsize=9)


def _head(figure: Figure, title: str, subtitle: str) -> None:
    """Write the heading, and the small print beside it or, where it is too long for that, below it."""
    width, height = figure.get_size_inches()
    # The average width of a character at either size, in inches.
    beside = 0.115 * len(title) + 0.07 * len(subtitle) + 0.3 < width
    heading = title if beside else f"{title}\n"
    figure.suptitle(heading, x=0.012, ha="left", fontsize=13, weight="bold", color=_INK, parse_math=False)
    if subtitle:
        x, y, align = (0.988, 0.985, "right") if beside else (0.012, 0.985 - 0.25 / height, "left")
        figure.text(x, y, subtitle, ha=align, va="top", fontsize=10, color="#444444", parse_math=False)


def percent(fraction: float, digits: int) -> str:
    """Write a fraction in percent with so many decimal places; `-` stands for NaN."""
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else "-"
