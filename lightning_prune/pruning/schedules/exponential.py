"""The same share of what is left at every step."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Exponential:
    """Let the density fall exponentially: equal stretches of the way remove equal shares of what is left.

    >>> [round(Exponential()(progress, final=0.75), 4) for progress in (0.0, 0.5, 1.0)]
    [0.0, 0.5, 0.75]
    """

    def __call__(self, progress: float, final: float) -> float:
        """Return the sparsity at `progress` in [0, 1] on the way to `final`, both fractions of units."""
        if progress >= 1:
            return final  # exactly: a last bit more can round to one more unit
        density: float = (1 - final) ** progress
        return 1 - density
