"""What a run logged, from the CSV files in its folder."""

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from lightning_prune.errors import InputError
from lightning_prune.reporting.run_folder import RunFolder

Curves = dict[str, dict[int, float]]
"""Values by metric, then by the number of epochs finished."""


def read_metrics(run_folder: Path) -> Curves:
    """Return what a run logged by metric, then by the number of epochs finished: `curves["val/accuracy"][3]`.

    Of several values in one epoch the last counts. Test metrics are left out: they belong to no epoch.

    Args:
        run_folder: Holds `csv/version_*/metrics.csv`. A resumed run writes a new version and repeats what came after
            its checkpoint, so of earlier versions only the epochs up to its first one count.

    Raises:
        InputError: If the folder has no such file.
    """
    versions = RunFolder(run_folder).metrics
    if not versions:
        raise InputError(f"expected a run folder with csv/version_*/metrics.csv, got {run_folder}")
    curves: Curves = {}
    for version in versions:
        rows = list(_logged(version))
        start = min((epoch for epoch, _ in rows), default=math.inf)
        curves = {name: {epoch: v for epoch, v in points.items() if epoch <= start} for name, points in curves.items()}
        for epoch, metrics in rows:
            for name, value in metrics.items():
                curves.setdefault(name, {})[epoch] = value
    return {name: points for name, points in curves.items() if points}


def logged_as(curves: Curves, metric: str, split: Literal["train", "val"]) -> str | None:
    """Return the name by which a metric of a split was logged: `val/map`, `valid_map`, `map_epoch` and the like.

    A name that says no split is one of validation, where most metrics are logged.
    """
    splits = "(train|training)[/_]" if split == "train" else "((val|valid|validation)[/_])?"
    pattern = re.compile(splits + re.escape(metric) + "(_epoch)?")
    return next((name for name in curves if pattern.fullmatch(name)), None)


def _logged(file: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield epoch, counted from 1, and metrics of every line that has both."""
    text = file.read_text()
    # A killed run can leave half a line at the end.
    complete = text[: text.rfind("\n") + 1]
    for row in csv.DictReader(complete.splitlines()):
        epoch = row.pop("epoch", "")
        row.pop("step", None)
        metrics = {name: float(cell) for name, cell in row.items() if cell and not name.startswith(("test/", "test_"))}
        if epoch and metrics:
            yield int(epoch) + 1, metrics
