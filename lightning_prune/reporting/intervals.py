"""How far a share that was counted in a sample lies from the true one."""

from math import sqrt

_Z = 1.959963984540054
"""Standard deviations around the mean that hold 95 % of a normal distribution."""


def wilson_interval(share: float, examples: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share, both ends in [0, 1].

    Other than the share plus and minus a standard error it is right near 0 and 1, where it lies to one side.

    Args:
        share: Fraction of the examples, in [0, 1].
        examples: How many there are, at least one.

    Reference:
        Wilson, 1927, "Probable inference, the law of succession, and statistical inference"; Newcombe, 1998,
        "Two-sided confidence intervals for the single proportion", method 3.
    """
    center = share + _Z**2 / (2 * examples)
    half = _Z * sqrt(share * (1 - share) / examples + (_Z / (2 * examples)) ** 2)
    whole = 1 + _Z**2 / examples
    # Rounding can push an end of 0 or 1 to the other side of the share.
    low, high = min(share, (center - half) / whole), max(share, (center + half) / whole)
    return max(0.0, low), min(1.0, high)
