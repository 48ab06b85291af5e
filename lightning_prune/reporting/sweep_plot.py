"""The picture of a sweep: accuracy over what the slim models cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from lightning_prune.reporting.number_formats import percent
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

    figure = Figure(figsize=(8, 5.4), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    style_panel(axes, "Test accuracy of the slim model", in_percent=True)
    axes.set_xlabel(f"remaining {cost} of the dense model", color=INK)
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
        axes.axhline(baseline, color=INK, lw=0.9, ls=(0, (2, 3)), zorder=1)
        axes.plot(1, baseline, "*", ms=17, color=INK, mec="white", zorder=6)
        _annotate(axes, f"dense {percent(baseline, 2)}", (1, baseline), INK)
    show_six_points(axes)
    for series, (color, marker) in looks.items():
        axes.plot([], [], marker, color=color, ms=8, mec="white", label=series or None)
    _draw_front(axes, means)
    names = axes.legend(title=legend, loc="lower right", frameon=False, alignment="left", fontsize=9)
    for text in (names.get_title(), *names.get_texts()):
        text.set_parse_math(False)
    write_heading(figure, title, subtitle)
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
    axes.step(xs, ys, where="post", color=GREY, lw=1.2, zorder=2, label="Pareto front")
    for mean in front:
        # Up and to the left of a point of the front there is nothing.
        label, color = means[mean]
        _annotate(axes, label, mean, color)


def _annotate(axes: Axes, text: str, position: tuple[float, float], color: str) -> None:
    label = axes.annotate(text, position, (-6, 6), textcoords="offset points", ha="right", zorder=7, parse_math=False)
    from matplotlib import patheffects

    halo = patheffects.withStroke(linewidth=2.5, foreground="white")
    label.set(fontsize=9, color=color, path_effects=[halo])
