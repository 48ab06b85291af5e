"""One criterion after the other, each for its share of the sparsity (FPGM-mix)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_prune.arguments import instance, number
from lightning_prune.errors import InputError
from lightning_prune.pruning.counts import count
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.criteria.magnitude import Magnitude


@dataclass(frozen=True)
class Mix(Criterion):
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

    >>> Mix(share=0.4)(torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]]))
    tensor([0., 1., 3., 2., 4.])
    """

    first: Criterion = field(default_factory=Magnitude)
    then: Criterion = field(default_factory=GeometricMedian)
    share: float = 0.25

    def __post_init__(self) -> None:
        number("share", self.share, "(0, 1)")
        for name, criterion in (("first", self.first), ("then", self.then)):
            instance(name, Criterion, criterion, Magnitude)
            if (criterion.needs, criterion.reads) != (Criterion.needs, Criterion.reads):
                raise InputError(f"expected criteria of the weights to mix, got {criterion!r}")

    @property
    def stages(self) -> tuple[tuple[Criterion, float], ...]:
        """The first criterion with its share, then the other with the rest."""
        return ((self.first, self.share), (self.then, 1 - self.share))

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)`, the order in which all of `(n_units, unit_size)` weights would go, 0 for the first."""
        scores = self.first(units)
        early = scores.argsort(stable=True)[: count(len(units), self.share)]
        late = torch.ones_like(scores, dtype=torch.bool).index_fill_(0, early, False).nonzero().view(-1)
        order = torch.cat([early, late[self.then(units[late]).argsort(stable=True)]])
        return torch.empty_like(scores).index_copy_(0, order, torch.arange(len(order)).to(scores))
