"""The table at the end of a run."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from lightning_prune.reporting.number_formats import (
    change_text,
    milliseconds,
    percent,
    score_text,
    short_bytes,
    short_count,
    time_range,
)
from lightning_prune.reporting.rows import BASELINE, EXPORTED, Metric, Row, reference

_LAYOUTS = (("  ", "  "), ("  ", "\n"), ("\n", "\n"))
"""What stands before the second and the third numbers of a cell, widest first: beside the first one, or below it."""


class _Cell(NamedTuple):
    """A number, how it compares with that of another model, and between what it lies."""

    number: str
    compared: str
    between: str = ""


@dataclass(frozen=True)
class EndTable:
    """Render models as lines of a table, each number compared with that of one of them, see `reference`.

    What compares numbers, and the range that they lie in, stand beside them where the console is wide enough, below
    them otherwise.

    Args:
        rows: At least one model.
        metric: Of their scores.
    """

    rows: Sequence[Row]
    metric: Metric

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the widest table that fits, or else the narrowest."""
        # A measurement never exceeds the width it is asked for.
        unbounded = options.update_width(10_000)
        tables = [self._table(*separators) for separators in _LAYOUTS]
        widths = [Measurement.get(console, unbounded, table).maximum for table in tables]
        fitting = (table for table, width in zip(tables, widths, strict=True) if width <= options.max_width)
        yield next(fitting, tables[-1])

    def _table(self, before_compared: str, before_between: str) -> Table:
        table = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=before_compared == "\n",
            caption=Text(self._caption()),
            caption_justify="left",
        )
        table.add_column("Model", style="bold", no_wrap=True)
        columns = self._columns()
        for heading in columns:
            table.add_column(heading.replace(" ", before_compared.strip(" ") or " "), justify="right")
        for row, *cells in zip(self.rows, *columns.values(), strict=True):
            texts = []
            for cell in cells:
                between = (before_between, (cell.between, "dim")) if cell.between else ()
                texts.append(Text.assemble(cell.number, before_compared, (cell.compared, "dim"), *between))
            table.add_row(Text(row.name), *texts)
        return table

    def _columns(self) -> dict[str, list[_Cell]]:
        """Return the cells of every row, by heading."""
        profiles, whole = [row.profile for row in self.rows], reference(self.rows).profile
        return {
            self.metric.heading: self._scores(),
            "Parameters": _compared([p.parameters for p in profiles], whole.parameters, short_count),
            "Non-zeros": _compared([p.nonzeros for p in profiles], whole.nonzeros, short_count),
            "MACs": _compared([p.macs for p in profiles], whole.macs, short_count),
            "Bytes": _compared([p.bytes for p in profiles], whole.bytes, short_bytes),
            "Latency": self._latencies(),
        }

    @property
    def _in_percent(self) -> bool:
        return self.metric.in_percent(row.score for row in self.rows)

    def _scores(self) -> list[_Cell]:
        base, shares = reference(self.rows).score, self._in_percent
        cells = []
        for row in self.rows:
            number, compared = score_text(row.score, in_percent=shares), change_text(row.score, base, in_percent=shares)
            cells.append(_Cell(number, compared, _interval(row) if shares else ""))
        return _aligned(cells)

    def _latencies(self) -> list[_Cell]:
        whole = reference(self.rows).profile
        cells = []
        for profile in (row.profile for row in self.rows):
            ratio = _ratio(profile.latency_ms, whole.latency_ms)
            about = "~" * (ratio != "-" and (profile.noisy or whole.noisy))
            compared = "noisy " * profile.noisy + about + ratio
            quartiles = time_range(profile.latency_low_ms, profile.latency_high_ms)
            cells.append(_Cell(milliseconds(profile.latency_ms), compared, quartiles))
        return _aligned(cells)

    def _caption(self) -> str:
        base, profiles = reference(self.rows), [row.profile for row in self.rows]
        batch = _numbers(profile.batch_size for profile in profiles)
        changed = "accuracy, the change in points" if self._in_percent else "the metric, the change"
        examples = _numbers(row.examples for row in self.rows) if self._in_percent else ""
        is_compared, is_trained = base.name == BASELINE, math.isfinite(base.profile.nonzeros)
        told = {
            f"Second numbers: share of {base.name}; of {changed}.": True,
            "Baseline: trained without compression by the same recipe, or what the run began with.": is_compared
            and is_trained,
            "Baseline: the network before any training, for its costs.": is_compared and not is_trained,
            f"The less of the metric, the better: {self.metric.words}.": self.metric.mode == "min",
            f"Third: 95 % interval of the accuracy over {examples} examples.": examples,
            f"Latency: median forward pass, then its quartiles, batch size {batch}, CPU threads "
            f"{_numbers(profile.threads for profile in profiles)}.": batch,
            "Noisy: these lie far apart, the machine was busy; ratios with ~ may be far off.": any(
                profile.noisy for profile in profiles
            ),
            "MACs: multiply-accumulates of conv and linear layers, one sample.": batch,
            "Of the exported file bytes and latency are its own, the counts those of the network.": any(
                row.name == EXPORTED for row in self.rows
            ),
        }
        return "\n" + " ".join(sentence for sentence, applies in told.items() if applies)


def _numbers(found: Iterable[int | None]) -> str:
    """Return the numbers that occur, the smallest first, "" for none."""
    return "/".join(map(str, sorted({number for number in found if number})))


def _interval(row: Row) -> str:
    return "-".join(f"{100 * end:.1f}" for end in row.interval) if row.interval else ""


def _compared(numbers: Sequence[float], base: float, text: Callable[[float], str]) -> list[_Cell]:
    return _aligned([_Cell(text(number), _ratio(number, base)) for number in numbers])


def _aligned(cells: Sequence[_Cell]) -> list[_Cell]:
    """Return the cells of a column with what stands behind the numbers equally long."""
    compared, between = (max(len(cell[place]) for cell in cells) for place in (1, 2))
    return [_Cell(number, second.rjust(compared), third.rjust(between)) for number, second, third in cells]


def _ratio(number: float, reference: float) -> str:
    ratio = number / reference if reference else math.nan
    return percent(ratio, 0 if ratio >= 0.095 else 1)
