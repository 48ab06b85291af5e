"""Another criterion's scores, made comparable between layers."""

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_prune.arguments import instance, one_of
from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.magnitude import Magnitude

By = Literal["mean", "l2"]
"""What the scores of a layer are divided by: their mean, or their L2 norm."""


@dataclass(frozen=True)
class Normalized(Criterion):
    """Divide the scores of each layer by their mean or L2 norm, so that layers of all scales compete in global scope.

    Args:
        criterion: Where the scores come from; one that reads the weights.
        by: See `By`.

    Raises:
        InputError: If `criterion` reads anything but the weights, or `by` is none of its options.

    Reference:
        Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017,
        arXiv:1611.06440 (L2).

    >>> Normalized(by="l2")(torch.tensor([[3.0], [-4.0]]))
    tensor([0.6000, 0.8000])
    """

    criterion: Criterion = field(default_factory=Magnitude)
    by: By = "mean"

    def __post_init__(self) -> None:
        instance("criterion", Criterion, self.criterion, Magnitude)
        one_of("by", self.by, get_args(By))
        if (self.criterion.needs, self.criterion.reads) != (self.needs, self.reads):
            raise InputError(f"expected a criterion of the weights to normalize, got {type(self.criterion).__name__}")

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores of `(n_units, unit_size)` weights."""
        scores = self.criterion(units)
        size = scores.mean() if self.by == "mean" else torch.linalg.vector_norm(scores)
        return scores / size.clamp_min(torch.finfo(scores.dtype).tiny)  # an empty layer scores 0
