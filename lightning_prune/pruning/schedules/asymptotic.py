"""The exponential approach of asymptotic soft filter pruning (ASFP)."""

import math
from dataclasses import dataclass

from lightning_prune.arguments import number


@dataclass(frozen=True)
class Asymptotic:
    """Approach the final sparsity as `a * exp(-k * progress) + b`: fast at first, then ever more slowly.

    The curve is fixed by three points: `initial` at 0, three quarters of the final sparsity at `knee`, all of it at 1.

    Args:
        initial: Sparsity at progress 0, fraction of units.
        knee: Progress at which three quarters of the final sparsity are reached, in (0, 0.75).

    Raises:
        InputError: If `knee` is not in (0, 0.75) or `initial` not in [0, 1).

    Reference:
        He et al., Asymptotic Soft Filter Pruning, 2019, arXiv:1808.07471, equation 5, with D = 1/8.

    >>> [round(Asymptotic()(epoch / 200, final=0.4), 4) for epoch in (0, 10, 25, 200)]
    [0.0, 0.1703, 0.3, 0.4]
    """

    initial: float = 0.0
    knee: float = 0.125

    def __post_init__(self) -> None:
        number("knee", self.knee, "(0, 0.75)")
        number("initial", self.initial, "[0, 1)")

    def __call__(self, progress: float, final: float) -> float:
        """Return the sparsity at `progress` in [0, 1] on the way to `final`, both fractions of units."""
        if final <= self.initial * 4 / 3:
            return final  # the start already lies above the knee: there is nothing to approach
        rate = self._rate((0.75 * final - self.initial) / (final - self.initial))
        return self.initial + (final - self.initial) * math.expm1(-rate * progress) / math.expm1(-rate)

    def _rate(self, reached: float) -> float:
        """Return k, for which the share `reached` of the way is gone at the knee, by bisection."""
        if reached <= self.knee:
            return 1e-9  # slower than a straight line is not asymptotic; take the line
        low, high = 1e-9, 1e9
        for _ in range(200):
            rate = math.sqrt(low * high)
            low, high = (rate, high) if math.expm1(-rate * self.knee) / math.expm1(-rate) < reached else (low, rate)
        return low
