"""The picture of a sweep: the metric over what the slim models cost."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Literal

from lightning_prune.reporting.number_formats import score_text
from lightning_prune.reporting.plot_style import (
    BLUE,
    DPI,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    show_six_points,
    style_panel,
    write_heading,
)
from lightning_prune.reporting.rows import Metric

if TYPE_CHECKING:  # drawing alone needs it, and whoever imports this package may not draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_SERIES = [*zip((BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY), "os^DvP", strict=True)]
"""Colour and marker of each series."""


@dataclass(frozen=True)
class Point:
    """Hold where one job of a sweep ended.

    Attributes:
        series: What gives the colour, the strategy for example.
        setting: What else tells it from other jobs, the seed aside; labels the front.
        cost: Share of the MACs, or of another cost, that is left in the slim model.
        score: Metric of the slim model.
        baseline: Metric of the network that was trained without compression; NaN if it is not known.
    """

    series: str
    setting: str
    cost: float
    score: float
    baseline: float = math.nan


def pareto_front(points: Sequence[tuple[float, float]], mode: Literal["max", "min"]) -> list[tuple[float, float]]:
    """Return the (cost, value) pairs that no other one beats, by rising cost.

    One pair beats another if it costs no more and is worth no less, and they are not equal; with the mode `"min"` a
    value is worth more the smaller it is.

    >>> pareto_front([(2, 0.9), (1, 0.5), (3, 0.8)], "max"), pareto_front([(2, 0.9), (1, 0.5)], "min")
    ([(1, 0.5), (2, 0.9)], [(1, 0.5)])
    """
    sign = 1 if mode == "max" else -1
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not front or sign * value > sign * front[-1][1]:
            front.append((cost, value))
    return front


def draw_sweep(points: Sequence[Point], title: str, subtitle: str, *, metric: Metric, cost: str, legend: str) -> Figure:
    """Draw a metric over the cost left: every job, the mean and range of equal settings, and the front of the means.

    The front is of means, because the best of several seeds flatters a setting. A baseline is a star with a line; where
    series have different ones, in their colour.

    Args:
        points: One for each job, at least one.
        title: Heading, usually the sweep.
        subtitle: Small print beside the heading.
        metric: Of the scores.
        cost: What `Point.cost` is a share of, in the plural.
        legend: What `Point.series` is.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 5.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    shares = metric.in_percent(score for point in points for score in (point.score, point.baseline))
    style_panel(axes, f"{metric.heading} of the slim model", in_percent=shares)
    axes.set_xlabel(f"remaining {cost} of the whole network", color=INK)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        groups[point.series, point.setting].append(point)
    looks = dict(zip(dict.fromkeys(point.series for point in points), cycle(_SERIES), strict=False))
    means = {
        _draw_setting(axes, same, *looks[series]): (setting, looks[series][0])
        for (series, setting), same in groups.items()
    }
    _draw_baselines(axes, points, {series: color for series, (color, _) in looks.items()}, metric, in_percent=shares)
    if shares:
        show_six_points(axes)
    for series, (color, marker) in looks.items():
        axes.plot([], [], marker, color=color, ms=8, mec="white", label=series or None)
    _draw_front(axes, means, metric.mode)
    corner: Literal["lower right", "upper right"] = "lower right" if metric.mode == "max" else "upper right"
    names = axes.legend(title=legend, loc=corner, frameon=False, alignment="left", fontsize=9)
    for text in (names.get_title(), *names.get_texts()):
        text.set_parse_math(False)
    write_heading(figure, title, subtitle)
    return figure


def _draw_baselines(
    axes: Axes, points: Sequence[Point], colors: Mapping[str, str], metric: Metric, *, in_percent: bool
) -> None:
    """Draw the baselines of each series, or those of all in one colour where they are the same."""
    known = [point for point in points if math.isfinite(point.baseline)]
    found = {series: sorted({p.baseline for p in known if p.series == series}) for series in colors}
    found = {series: scores for series, scores in found.items() if scores}
    if len({tuple(scores) for scores in found.values()}) == 1:
        found = {"": next(iter(found.values()))}
        colors = {"": INK}
    for series, scores in found.items():
        for score in scores:
            axes.axhline(score, color=colors[series], lw=0.9, ls=(0, (2, 3)), zorder=1)
            axes.plot(1, score, "*", ms=17, color=colors[series], mec="white", zorder=6)
        ends = " to ".join(dict.fromkeys(score_text(end, in_percent=in_percent) for end in (scores[0], scores[-1])))
        below = metric.mode == "min"
        _annotate(axes, f"baseline {ends}", (1, scores[0 if below else -1]), colors[series], below=below)


def _draw_setting(axes: Axes, same: Sequence[Point], color: str, marker: str) -> tuple[float, float]:
    """Draw the jobs of one setting as faint marks with their mean and range; return the mean."""
    costs, scores = [point.cost for point in same], [point.score for point in same]
    x, y = sum(costs) / len(costs), sum(scores) / len(scores)
    if len(same) > 1:
        axes.plot(costs, scores, marker, color=color, alpha=0.4, ms=5, mec="none", zorder=3)
        axes.vlines(x, min(scores), max(scores), color=color, lw=1.4, zorder=4)
        axes.hlines(y, min(costs), max(costs), color=color, lw=1.4, zorder=4)
    axes.plot(x, y, marker, color=color, ms=8, mec="white", mew=0.8, zorder=5)
    return x, y


def _draw_front(axes: Axes, means: Mapping[tuple[float, float], tuple[str, str]], mode: Literal["max", "min"]) -> None:
    front = pareto_front(list(means), mode)
    right = max(1.03, max(x for x, _ in means) + 0.03)
    # About the width of the first label, which stands to the left of all points.
    left = front[0][0] - 0.03 - 0.011 * len(means[front[0]][0])
    axes.set_xlim(left, right)
    # The score that a budget buys stays the same until the next point, and to the right of the last.
    xs, ys = [x for x, _ in front] + [right], [y for _, y in front] + [front[-1][1]]
    axes.step(xs, ys, where="post", color=GREY, lw=1.2, zorder=2, label="Pareto front")
    for mean in front:
        # To the left of a point of the front there is nothing that is as good.
        label, color = means[mean]
        _annotate(axes, label, mean, color, below=mode == "min")


def _annotate(axes: Axes, text: str, position: tuple[float, float], color: str, *, below: bool = False) -> None:
    offset, align = (-6, -6 if below else 6), "top" if below else "baseline"
    label = axes.annotate(
        text, position, offset, textcoords="offset points", ha="right", va=align, zorder=7, parse_math=False
    )
    from matplotlib import patheffects

    halo = patheffects.withStroke(linewidth=2.5, foreground="white")
    label.set(fontsize=9, color=color, path_effects=[halo])
