"""Rounds of pruning and training, as for lottery tickets."""

import math
from dataclasses import dataclass

from lightning_prune.arguments import whole_number


@dataclass(frozen=True)
class Iterative:
    """Remove, at the start of each of several equally long rounds, the same share of what is left.

    Args:
        rounds: Number of rounds; the last one starts with the final sparsity.

    Raises:
        InputError: If `rounds` is not a whole number of at least 1.

    Reference:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks, 2015, arXiv:1506.02626; Frankle
        and Carbin, The Lottery Ticket Hypothesis, 2019, arXiv:1803.03635 (a fixed share of what is left each round).

    >>> [round(Iterative(rounds=3)(progress, final=0.488), 4) for progress in (0.0, 0.3, 0.4, 0.7, 1.0)]
    [0.2, 0.2, 0.36, 0.488, 0.488]
    """

    rounds: int = 5

    def __post_init__(self) -> None:
        whole_number("rounds", self.rounds)

    def __call__(self, progress: float, final: float) -> float:
        """Return the sparsity at `progress` in [0, 1] on the way to `final`, both fractions of units."""
        current = 1 + math.floor(progress * self.rounds + 1e-9)  # 29 / 100 * 100 is a little less than 29
        return final if current >= self.rounds else 1 - (1 - final) ** (current / self.rounds)
