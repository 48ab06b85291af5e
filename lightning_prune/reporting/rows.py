"""What is reported of the models of a run, a row for each."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lightning_prune.reporting.intervals import wilson_interval
from lightning_prune.reporting.profiling import Profile

BASELINE = "baseline"
"""The name of the network that was trained without compression, by the same recipe."""

EXPORTED = "exported"
"""The name of the file that the last model was written to, once it was opened again."""


@dataclass(frozen=True)
class Metric:
    """Name the number by which the models of a run are judged.

    Attributes:
        name: What a module logs it by, without the split: `"accuracy"`, `"map"`, `"loss"`.
        mode: Whether more of it is better, `"max"`, or less, `"min"`.
        split: Of which examples the rows of a table tell it.
    """

    name: str
    mode: Literal["max", "min"]
    split: Literal["test", "val"] = "test"

    @property
    def is_share(self) -> bool:
        """Whether it is the share of examples that are right, by the last word of its name."""
        return re.split("[^a-z]+", self.name.lower())[-1] in ("accuracy", "acc")

    @property
    def heading(self) -> str:
        """The metric and its split in words.

        >>> Metric("mean_absolute_error", "min", "val").heading
        'Validation mean absolute error'
        """
        return f"{'Test' if self.split == 'test' else 'Validation'} {self.words}"

    @property
    def words(self) -> str:
        """The metric alone in words."""
        return self.name.replace("_", " ")

    def in_percent(self, scores: Iterable[float]) -> bool:
        """Return whether scores are written in percent: shares, and not an accuracy of 99.2 that a module logs."""
        return self.is_share and all(0 <= score <= 1 for score in scores if math.isfinite(score))

    def is_better(self, one: float, other: float) -> bool:
        """Return whether one value is better than another; not if either is NaN."""
        return one > other if self.mode == "max" else one < other


@dataclass(frozen=True)
class Row:
    """Hold what is reported of one model.

    Attributes:
        name: Which model: `"teacher"`, `"baseline"`, `"masked"`, `"slim"`, `"fine-tuned"`, `"exported"` or another.
        score: Its metric; NaN where it is not known.
        profile: What the model costs.
        examples: How many examples the score is a share of; None where it is no share, or their number not known.
    """

    name: str
    score: float
    profile: Profile
    examples: int | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the score's 95 % interval, if it is a share of a known number of examples."""
        return wilson_interval(self.score, self.examples) if self.examples and 0 <= self.score <= 1 else None


def reference(rows: Sequence[Row]) -> Row:
    """Return the model that others are compared with: the baseline, or else the first of the run's own.

    The teacher is not one of these; a baseline is it even where its score is not known.
    """
    own = [row for row in rows if row.name != "teacher"] or rows
    return next((row for row in own if row.name == BASELINE), own[0])
