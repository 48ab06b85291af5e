"""Means over an epoch of what every step computes, at no cost but an addition a step."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class EpochMeans:
    """Running means of scalars by name, weighted by the number of samples.

    `LightningModule.log` does the same, but takes the host several times as long as a small loss; these are logged
    once, at the end of the epoch.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._samples: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor], samples: int) -> None:
        """Take in the values of a step.

        Args:
            values: Scalars, `()`, means over the step's samples.
            samples: How many these are.
        """
        for name, value in values.items():
            weighted = value.detach() * samples
            before = self._sums.get(name)
            self._sums[name] = weighted if before is None else before.to(weighted.device) + weighted
            self._samples[name] = self._samples.get(name, 0) + samples

    def take(self) -> dict[str, Tensor]:
        """Return the means, `()` each, and begin anew."""
        means = {name: total / self._samples[name] for name, total in self._sums.items()}
        self._sums, self._samples = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return what has been added since `take`, on the CPU."""
        return {"sums": {name: total.cpu() for name, total in self._sums.items()}, "samples": dict(self._samples)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what another object had."""
        self._sums, self._samples = dict(state["sums"]), dict(state["samples"])
