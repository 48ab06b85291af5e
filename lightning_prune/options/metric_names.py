"""What the name of a logged metric tells."""

import re
from typing import Literal

SPLIT = re.compile(r"(?:(?<=^)|(?<=[/_.-]))(?:validation|valid|val|eval|test)(?=[/_.-]|$)")
"""The part that says which data a metric is of."""

_LESS = re.compile(r"(?:loss|error|perplexity|mae|mse|rmse|wer|cer)$")


def metric_name(monitor: str) -> str:
    """Return a metric's name without the data that it is of.

    >>> metric_name("val/mean_error"), metric_name("loss_val"), metric_name("val")
    ('mean_error', 'loss', 'val')
    """
    return SPLIT.sub("", monitor).strip("/_.-") or monitor


def mode_of(monitor: str | None, mode: Literal["max", "min"] | None) -> Literal["max", "min"]:
    """Return whether more of a metric is better, `max`, or less, `min`; where nobody says so, by its name.

    >>> mode_of("val/mean_error", None), mode_of("val/map", None), mode_of("val/map", "min")
    ('min', 'max', 'min')
    """
    return mode or ("min" if _LESS.search(metric_name(monitor or "metric").lower()) else "max")
