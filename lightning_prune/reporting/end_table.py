"""The table at the end of a run."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lightning_prune.reporting.number_formats import milliseconds, percent, short_bytes, short_count
from lightning_prune.reporting.rows import EXPORTED, Row, reference


@dataclass(frozen=True)
class EndTable:
    """Render models as lines of a table, each number with its ratio to that of one of them, see `reference`.

    Ratios stand beside the numbers where the console is wide enough, below them otherwise.

    Args:
        rows: At least one model.
    """

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table with ratios beside the numbers if that fits, else below them."""
        wide = self._table("  ")
        # A measurement never exceeds the width it is asked for.
        unbounded = options.update_width(10_000)
        fits = Measurement.get(console, unbounded, wide).maximum <= options.max_width
        yield wide if fits else self._table("\n")

    def _table(self, separator: str) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, caption=Text(self._caption()), caption_justify="left"
        )
        table.add_column("Model", style="bold")
        columns = self._columns()
        for heading in columns:
            table.add_column(heading.replace(" ", separator.strip(" ") or " "), justify="right")
        for row, *cells in zip(self.rows, *columns.values(), strict=True):
            table.add_row(Text(row.name), *(Text.assemble(number, separator, (note, "dim")) for number, note in cells))
        return table

    def _columns(self) -> dict[str, list[tuple[str, str]]]:
        """Return (number, note) of every row, by heading; the notes of one column are equally long."""
        base = reference(self.rows)
        accuracies = [row.accuracy for row in self.rows]
        changes = [100 * (accuracy - base.accuracy) for accuracy in accuracies]
        points = [f"{change:+.2f}" if math.isfinite(change) else "-" for change in changes]
        profiles, whole = [row.profile for row in self.rows], base.profile
        return {
            "Test accuracy": _aligned([percent(accuracy, 2) for accuracy in accuracies], points),
            "Parameters": _compared([p.parameters for p in profiles], whole.parameters, short_count),
            "Non-zeros": _compared([p.nonzeros for p in profiles], whole.nonzeros, short_count),
            "MACs": _compared([p.macs for p in profiles], whole.macs, short_count),
            "Bytes": _compared([p.bytes for p in profiles], whole.bytes, short_bytes),
            "Latency": _compared([p.latency_ms for p in profiles], whole.latency_ms, milliseconds),
        }

    def _caption(self) -> str:
        threads = "/".join(map(str, sorted({row.profile.threads for row in self.rows})))
        batch = "/".join(map(str, sorted({row.profile.batch_size for row in self.rows})))
        return (
            f"\nLatency: median forward pass, batch size {batch}, CPU threads {threads}. "
            "MACs: multiply-accumulates of conv and linear layers, one image. "
            f"Second numbers: share of {reference(self.rows).name}; of accuracy, the change in points."
            + " Of the exported file bytes and latency are its own, the counts those of the network."
            * any(row.name == EXPORTED for row in self.rows)
        )


def _compared(numbers: Sequence[float], base: float, text: Callable[[float], str]) -> list[tuple[str, str]]:
    return _aligned([text(number) for number in numbers], [_ratio(number, base) for number in numbers])


def _aligned(numbers: Sequence[str], notes: Sequence[str]) -> list[tuple[str, str]]:
    width = max(map(len, notes))
    return [(number, note.rjust(width)) for number, note in zip(numbers, notes, strict=True)]


def _ratio(number: float, reference: float) -> str:
    ratio = number / reference if reference else math.nan
    return percent(ratio, 0 if ratio >= 0.095 else 1)
