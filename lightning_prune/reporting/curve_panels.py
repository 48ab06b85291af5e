"""What the picture of a run shows in which panel: the metric, and what pruning leaves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lightning_prune.reporting.layer_counts import shared_start
from lightning_prune.reporting.metrics import Curves, logged_as
from lightning_prune.reporting.plot_style import BLUE, GREEN, GREY, VERMILLION
from lightning_prune.reporting.rows import Metric

Points = Mapping[int, float]
"""Values by the number of epochs finished."""


@dataclass(frozen=True)
class Curve:
    """Hold one line of a panel.

    Attributes:
        points: What was logged, at least one finite value.
        label: Written beside its end.
        color: Of line and label.
        width: Of the line, in points.
        dashes: How the line is drawn; gaps let one through that lies under it.
        tuned: What the fine-tuning logged, by the epochs of both.
    """

    points: Points
    label: str
    color: str
    width: float
    dashes: str = "-"
    tuned: Points = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        """All finite values in their order."""
        return finite(self.points) + finite(self.tuned)


@dataclass(frozen=True)
class Panel:
    """Hold the lines of a panel; what comes last is drawn on top.

    Attributes:
        heading: What the values are.
        curves: At least one.
        in_percent: Whether the values are shares.
        is_whole: Whether the axis shows all from 0 to 1, and not just where the lines are.
    """

    heading: str
    curves: list[Curve]
    in_percent: bool = True
    is_whole: bool = False


def finite(points: Points) -> list[float]:
    """Return the values that are neither NaN nor infinite."""
    return [value for value in points.values() if math.isfinite(value)]


def panels_of(curves: Curves, tuned: Curves, metric: Metric) -> list[Panel]:
    """Return the panels that have something to show: the metric or else the loss, and below it what pruning leaves.

    Args:
        curves: What the training logged.
        tuned: What the fine-tuning logged, by the epochs of both.
        metric: By which the models of the run are judged.
    """
    shown = (_metric_panel(curves, tuned, each) for each in (metric, Metric("loss", "min")))
    return [panel for panel in (next(filter(None, shown), None), _pruning_panel(curves)) if panel is not None]


def _metric_panel(curves: Curves, tuned: Curves, metric: Metric) -> Panel | None:
    lines = []
    splits: tuple[tuple[Literal["train", "val"], str, str, float], ...]
    splits = ("train", "training", GREY, 1.4), ("val", "validation", BLUE, 2.6)
    for split, label, color, width in splits:
        name = logged_as(curves, metric.name, split)
        if name is not None and finite(curves[name]):
            lines.append(Curve(curves[name], label, color, width, tuned=tuned.get(name, {})))
    shares = metric.in_percent(value for line in lines for value in line.values)
    return Panel(metric.words.capitalize(), lines, in_percent=shares) if lines else None


def _pruning_panel(curves: Curves) -> Panel | None:
    zeros, macs = curves.get("sparsity/total", {}), curves.get("macs/ratio", {})
    if prunes_weights(curves):
        left = {epoch: 1 - value for epoch, value in zeros.items()}
        return Panel("Non-zero weights left", [Curve(left, "all layers", VERMILLION, 2.2)], is_whole=True)
    lines = []
    if any(finite(zeros)):
        lines.append(Curve(zeros, "zero weights", VERMILLION, 2.2))
    if any(value < 1 for value in finite(macs)):
        lines.append(Curve(macs, "MACs left", GREEN, 2.2, "--"))
    return Panel("Zero weights and remaining MACs", lines, is_whole=True) if lines else None


def prunes_weights(curves: Curves) -> bool:
    """Return whether weights became zero one by one: without a channel that could go, MACs stay what they were."""
    macs = finite(curves.get("macs/ratio", {}))  # none of a module whose channels cannot be followed
    # A channel that happens to lose all its weights is no structure yet.
    return any(finite(curves.get("sparsity/total", {}))) and min(macs, default=1.0) > 0.99


def layers_left(curves: Curves) -> dict[str, Points]:
    """Return the share of non-zero weights of each layer, by its name without what all names begin with."""
    prefix = "sparsity/"
    names = [name.removeprefix(prefix) for name in curves if name.startswith(prefix) and name != "sparsity/total"]
    shared = shared_start(names)
    return {
        name.removeprefix(shared): {epoch: 1 - value for epoch, value in curves[prefix + name].items()}
        for name in names
    }
