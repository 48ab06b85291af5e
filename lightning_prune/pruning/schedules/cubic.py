"""The ramp of gradual magnitude pruning."""

from dataclasses import dataclass

from lightning_prune.arguments import number


@dataclass(frozen=True)
class Cubic:
    """Rise from the initial to the final sparsity, fast while there is much to remove and slowly at the end.

    Args:
        initial: Sparsity at progress 0, fraction of units.
        exponent: Power of what is left of the way; 1 for a straight line.

    Raises:
        InputError: If `initial` is not in [0, 1) or `exponent` is not greater than 0.

    Reference:
        Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878, equation 1 (exponent 3).

    >>> [round(Cubic()(tenths / 10, final=0.9), 4) for tenths in (0, 1, 5, 10)]
    [0.0, 0.2439, 0.7875, 0.9]
    """

    initial: float = 0.0
    exponent: float = 3.0

    def __post_init__(self) -> None:
        number("initial", self.initial, "[0, 1)")
        number("exponent", self.exponent, "(0, inf)")

    def __call__(self, progress: float, final: float) -> float:
        """Return the sparsity at `progress` in [0, 1] on the way to `final`, both fractions of units."""
        if final <= self.initial:
            return final  # nothing is ever put back
        left: float = (1 - progress) ** self.exponent
        return final + (self.initial - final) * left
