"""All at once."""

from dataclasses import dataclass

from lightning_prune.arguments import number


@dataclass(frozen=True)
class OneShot:
    """Ask for nothing before one moment and for the final sparsity from it on.

    Args:
        at: Progress at which everything goes, in [0, 1].

    Raises:
        InputError: If `at` is not in [0, 1].

    >>> [OneShot(at=0.5)(progress, final=0.4) for progress in (0.0, 0.49, 0.5, 1.0)]
    [0.0, 0.0, 0.4, 0.4]
    """

    at: float = 0.0

    def __post_init__(self) -> None:
        number("at", self.at, "[0, 1]")

    def __call__(self, progress: float, final: float) -> float:
        """Return the sparsity at `progress` in [0, 1] on the way to `final`, both fractions of units."""
        return final if progress >= self.at else 0.0
