"""One criterion after the other, each for its share of the sparsity (FPGM-mix)."""

from dataclasses import dataclass, field

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.criteria.magnitude import Magnitude


@dataclass(frozen=True)
class Mix:
    """Prune a share of the units by one criterion, then the rest by another, which scores only what is left.

    Args:
        first: Criterion for the first share.
        then: Criterion for the rest.
        share: Share of the pruned units that `first` takes, in (0, 1). Both counts are rounded on their own.

    Raises:
        InputError: If `share` is not in (0, 1), or a criterion looks at anything but weights.

    Reference:
        He et al., Filter Pruning via Geometric Median, 2019, arXiv:1811.00250, section 4: "FPGM-mix 40 %" prunes 10 %
        by norm and 30 % by distance, a share of 0.25.
    """

    first: Criterion = field(default_factory=Magnitude)
    then: Criterion = field(default_factory=GeometricMedian)
    share: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"expected a share in (0, 1), got {self.share}")
        for criterion in (self.first, self.then):
            if (criterion.needs, criterion.reads) != (Criterion.needs, Criterion.reads):
                raise InputError(f"expected criteria of the weights to mix, got {criterion!r}")
