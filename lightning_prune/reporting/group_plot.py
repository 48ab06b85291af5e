"""A picture of the groups of channels of a model: its layers below each other, crossed by the groups as columns."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_prune.errors import InputError
from lightning_prune.reporting.group_rows import (
    OWNED,
    READS,
    STAYS,
    WRITES,
    LayerRow,
    group_lanes,
    group_spans,
    layer_rows,
)
from lightning_prune.reporting.plot_style import INK
from lightning_prune.slimming import Group, PrunableGroups

if TYPE_CHECKING:  # drawing alone needs it, and whoever imports this package may not draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# In the order in which they stand in a cell; of the palette of Okabe and Ito, distinct under common colour blindness.
_COLORS = {READS: "#009E73", WRITES: "#0072B2", OWNED: "#E69F00", STAYS: "#9A9A9A"}
_SOFT, _GROUND, _STRIPE = "#555555", "#CBD5DC", "#F5F5F5"

_MIN_WIDTH, _SUFFIXES = 7.0, (".png", ".svg", ".pdf")
_MAX_INCHES, _MAX_PIXELS, _DPI = 60.0, 2e7, 130.0
_TOP, _MARGIN, _LINE, _LETTER = 0.95, 0.15, 0.21, 0.076
"""Inches: of the heading, around the rest, of one layer, and of one letter in such a line."""


def draw_groups(groups: PrunableGroups, path: str | PathLike[str], title: str = "Prunable groups") -> None:
    """Draw which layers lose channels together, and which keep theirs and why, into a PNG, SVG or PDF file.

    Layers stand below each other in the order in which the model holds them, each together with its normalization. A
    group is a column that crosses the layers which lose one of its units at the same time, coloured by what they are
    to it. It begins with its number and its units: `3: 64`, or `3: 12 x 64` for 12 heads of 64 channels. Where a column
    ends, the next one that fits begins.

    Args:
        groups: What `prunable_groups` returns.
        path: File to write; its ending says the format.
        title: Heading, the name of the model for example.

    Raises:
        InputError: If the file has another ending, or the model has no layer that could be pruned or must stay.
    """
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise InputError(f"expected a picture whose name ends in {', '.join(_SUFFIXES)}, got {path}")
    figure = _figure(groups, title)
    width, height = figure.get_size_inches()
    figure.savefig(path, dpi=min(_DPI, (_MAX_PIXELS / (width * height)) ** 0.5))


def _figure(groups: PrunableGroups, title: str) -> Figure:
    rows = layer_rows(groups)
    if not rows:
        raise InputError("expected a model with convolutions or linear layers, got groups of none")
    lanes = group_lanes(rows, len(groups))
    count = max(lanes, default=-1) + 1
    line = min(_LINE, (_MAX_INCHES - _TOP - _MARGIN) / len(rows))
    letter = _LETTER * line / _LINE
    left = 0.25 + letter * max(len(row.label) for row in rows)
    right = 1.1 + letter * max(len(row.reason) for row in rows)
    lane = min(0.9 if count <= 14 else 0.66, (_MAX_INCHES - left - right) / max(count, 1))
    height, width = _TOP + line * len(rows) + _MARGIN, max(_MIN_WIDTH, left + lane * count + right)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.add_axes((left / width, _MARGIN / height, 1 - left / width, line * len(rows) / height))
    axes.set(xlim=(0, (width - left) / lane), ylim=(len(rows) - 0.5, -0.5))
    size = 72 * 0.6 * line
    _draw_frame(axes, rows, size)
    _draw_grounds(axes, rows, lanes, groups, size)
    _draw_cells(axes, rows, lanes, size)
    _draw_stays(axes, rows, count, size)
    _draw_head(figure, groups, title)
    return figure


# Drawing --------------------------------------------------------------------------------------------------------------


def _draw_frame(axes: Axes, rows: Sequence[LayerRow], size: float) -> None:
    """Name the rows, and shade every second one."""
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=size, color=INK, parse_math=False)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_visible(False)
    for height in range(0, len(rows), 2):
        _fill(axes, 0, axes.get_xlim()[1], height, height, 1.0, _STRIPE)


def _draw_grounds(
    axes: Axes, rows: Sequence[LayerRow], lanes: Sequence[int], groups: Sequence[Group], size: float
) -> None:
    """Draw what the cells of each group stand on, and write its number and its units into the first cell."""
    for number, (first, last) in group_spans(rows).items():
        _fill(axes, lanes[number] + 0.03, 0.94, first, last, 0.9, _GROUND)
        units, each = groups[number].filters[0].index.shape
        label = f"{number}: {units} x {each}" if each > 1 else f"{number}: {units}"
        _write(axes, lanes[number] + 0.47, first, label, size, "bold")


def _draw_cells(axes: Axes, rows: Sequence[LayerRow], lanes: Sequence[int], size: float) -> None:
    """Colour what each layer is to its groups, and write which share of it they have where there is room.

    What belongs to the channels takes less room than the layer itself.
    """
    spans = group_spans(rows)
    for height, row in enumerate(rows):
        for number, parts in row.parts.items():
            room = {part: 0.15 if part == OWNED else 1.0 for part in _COLORS if part in parts}
            left, scale = lanes[number] + 0.06, 0.88 / sum(room.values())
            for part in room:
                _fill(axes, left, scale * room[part], height, height, 0.78, _COLORS[part])
                left += scale * room[part]
            share = parts[next(iter(room))]
            if share and height > spans[number][0]:
                _write(axes, lanes[number] + 0.47, height, share, 0.8 * size)


def _draw_stays(axes: Axes, rows: Sequence[LayerRow], count: int, size: float) -> None:
    """Write behind the layers how many of their channels stay, and why."""
    for height, row in enumerate(rows):
        if row.stays:
            _fill(axes, count + 0.06, 0.88, height, height, 0.78, _COLORS[STAYS])
            _write(axes, count + 0.5, height, f"{sum(row.stays.values())}", size)
            axes.text(count + 1.05, height, row.reason, va="center_baseline", size=size, color=_SOFT, parse_math=False)


def _fill(axes: Axes, left: float, width: float, first: int, last: int, thickness: float, color: str) -> None:
    """Colour a part of some rows; what is drawn later is on top."""
    place = (left, first - thickness / 2)
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(place, width, last - first + thickness, facecolor=color, linewidth=0))


def _write(axes: Axes, x: float, y: float, text: str, size: float, weight: str = "normal") -> None:
    """Write into the middle of a cell."""
    axes.text(x, y, text, color="white", ha="center", va="center_baseline", size=size, weight=weight)


def _draw_head(figure: Figure, groups: PrunableGroups, title: str) -> None:
    """Write the heading, what there is in numbers, and what the colours mean."""
    width, height = figure.get_size_inches()
    left = _MARGIN / width
    units = sum(group.size for group in groups)
    summary = f"{len(groups)} groups, {units:,} units in all; 3: 64 at the top of a column is group 3, with 64 units"
    figure.text(left, 1 - 0.1 / height, title, va="top", size=13, weight="bold", color=INK, parse_math=False)
    figure.text(left, 1 - 0.39 / height, summary, va="top", size=9, color=_SOFT)
    from matplotlib.patches import Patch

    keys = [Patch(color=color, label=part) for part, color in _COLORS.items()]
    place, style = (left, 1 - 0.58 / height), {"fontsize": 9, "frameon": False, "handlelength": 1.0}
    figure.legend(keys, list(_COLORS), loc="upper left", bbox_to_anchor=place, ncols=4, borderpad=0, **style)
