"""What every criterion is: one score a unit, and what it must be shown to give it."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

Needs = Literal["weights", "first_order", "second_order", "activations"]
"""What a criterion looks at.

* `"weights"`: the weights `w`.
* `"first_order"`: `w * dL/dw` of one optimizer step, averaged over processes.
* `"second_order"`: `w * h * w` of one optimizer step, `h` the diagonal of the loss's Hessian.
* `"activations"`: outputs of the activation functions behind a channel, one batch in eval mode.
"""

Part = Literal["filter", "bias", "scale", "shift"]
"""What belongs to a channel: its filter and bias, and the scale and shift of the normalization behind them."""


class Criterion(ABC):
    """Score units; the lowest go first. Scores of several steps are averaged."""

    needs: ClassVar[Needs] = "weights"
    """What `units` holds."""

    reads: ClassVar[tuple[tuple[Part, ...], ...]] = (("filter",),)
    """The parts of a channel that are scored: the first of these sets of which the layer has any."""

    memory: ClassVar[float] = 0.0
    """Share of its earlier scores that a unit takes along from one choice to the next; 1 sums up the whole run."""

    @property
    def stages(self) -> tuple[tuple["Criterion", float], ...]:
        """The criteria that score one after the other what is left, and which share of the units to go each takes."""
        return ((self, 1.0),)

    @abstractmethod
    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)`; for `"activations"` `unit_size` is their number."""
