"""How much of a loss term counts at which step of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """Grow linearly from 0 to 1, stay, and fall linearly to 0 at the end of the run.

    Args:
        warm_up: Optimizer steps after which it is 1.
        decay: Optimizer steps after which it falls; None if it does not.
        end: Optimizer steps of the run.
    """

    warm_up: int
    decay: int | None
    end: int

    def __call__(self, step: int) -> float:
        """Return the factor, in [0, 1], of the step that comes after `step` others.

        >>> [Ramp(warm_up=2, decay=4, end=8)(step) for step in range(9)]
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
        """
        up = step / self.warm_up if self.warm_up else 1.0
        down = 1.0 if self.decay is None else (self.end - step) / max(1, self.end - self.decay)
        return max(0.0, min(up, down, 1.0))
