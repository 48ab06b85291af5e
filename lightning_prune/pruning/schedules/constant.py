"""The final sparsity from the first reset on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Constant:
    """Ask for the final sparsity at every moment.

    >>> Constant()(0.1, final=0.4)
    0.4
    """

    def __call__(self, progress: float, final: float) -> float:
        """Return the sparsity at `progress` in [0, 1] on the way to `final`, both fractions of units."""
        return final
