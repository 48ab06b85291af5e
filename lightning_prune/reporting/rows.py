"""What is reported of the models of a run, a row for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_prune.reporting.profiling import Profile

EXPORTED = "exported"
"""The name of the file that the last model was written to, once it was opened again."""


@dataclass(frozen=True)
class Row:
    """Hold what is reported of one model.

    Attributes:
        name: Which model: `"teacher"`, `"dense"`, `"masked"`, `"slim"`, `"fine-tuned"`, `"exported"` or another.
        accuracy: Test accuracy, in [0, 1]; NaN where it is not known.
        profile: What the model costs.
    """

    name: str
    accuracy: float
    profile: Profile


def reference(rows: Sequence[Row]) -> Row:
    """Return the model that others are compared with: the first one of the run's own, which is not its teacher."""
    return next((row for row in rows if row.name != "teacher"), rows[0])
