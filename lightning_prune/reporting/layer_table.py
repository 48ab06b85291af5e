"""The table of layers at the end of a run."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_prune.reporting.layer_counts import LayerCount, macs_shares, shape_text, shared_start
from lightning_prune.reporting.number_formats import percent, short_count

_LINES = 20
"""Lines that a table has at most: layers, or neighbours that are alike."""


@dataclass(frozen=True)
class LayerTable:
    """Render what is left of each layer; of many layers, neighbours that are alike share a line.

    Where that is still too much for a screen, one line names the layers that have lost the least and the most.

    Args:
        layers: See `layer_counts`.
    """

    layers: Sequence[LayerCount]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table, or the line in its place; nothing without layers."""
        if not self.layers:
            return
        entries = list(zip(self.layers, macs_shares(self.layers), strict=True))
        lines = [[entry] for entry in entries]
        if len(lines) > _LINES:
            lines = [list(alike) for _, alike in groupby(entries, key=lambda entry: _looks(entry[0]))]
        yield self._table(lines) if len(lines) <= _LINES else self._line()

    def _table(self, lines: Sequence[Sequence[tuple[LayerCount, float]]]) -> Table:
        caption = (
            "\nSparsity: zeros among the weights. Channels: outputs that are left. "
            "MACs: share of all that are left to compute."
        )
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
        table.caption, table.caption_justify = Text(caption), "left"
        table.add_column("Layer", overflow="fold")
        for heading in ("Shape", "Weights", "Sparsity", "Channels", "MACs"):
            table.add_column(heading, justify="right", no_wrap=True)
        start = shared_start(layer.layer for layer in self.layers)
        for line in lines:
            first, last = (layer.layer.removeprefix(start) for layer in (line[0][0], line[-1][0]))
            name = first if len(line) == 1 else f"{first} to {last} ({len(line)})"
            table.add_row(Text(name), shape_text(line[0][0].shape), *_cells(line))
        table.add_section()
        everything = [entry for line in lines for entry in line]
        table.add_row("all", "", *_cells(everything), style="bold")
        return table

    def _line(self) -> Text:
        least, most = (extreme(self.layers, key=lambda layer: layer.sparsity) for extreme in (min, max))
        start = shared_start(layer.layer for layer in self.layers)
        ends = " to ".join(f"{percent(end.sparsity, 1)} ({end.layer.removeprefix(start)})" for end in (least, most))
        return Text(f"{len(self.layers)} layers with {ends} of zeros")


def _looks(layer: LayerCount) -> tuple[tuple[int, ...], int, str]:
    return layer.shape, layer.channels_left, percent(layer.sparsity, 0)


def _cells(line: Sequence[tuple[LayerCount, float]]) -> list[str]:
    """Return the cells from the weights on, of layers that share a line."""
    layers = [layer for layer, _ in line]
    weights, nonzeros = sum(layer.weights for layer in layers), sum(layer.nonzeros for layer in layers)
    left, channels = sum(layer.channels_left for layer in layers), sum(layer.channels for layer in layers)
    shares = [share for _, share in line if math.isfinite(share)]
    return [
        short_count(weights),
        percent(1 - nonzeros / max(1, weights), 1),
        f"{left} of {channels}",
        percent(sum(shares), 1) if shares else "-",
    ]
