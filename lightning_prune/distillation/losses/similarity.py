"""Which samples look alike to a layer (similarity-preserving distillation)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lightning_prune.distillation.losses.relations import directions, inner_products, rows


@dataclass(frozen=True)
class Similarity:
    """Compare the inner products of the samples of a batch, scaled to length 1 for each sample.

    Features of any two shapes fit; their scale does not count.

    Reference:
        Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682; a weight of 3000 is common.

    >>> import torch
    >>> Similarity()(torch.eye(2), torch.tensor([[1.0], [0.0]]))
    tensor(0.2500)
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared difference over the `n * n` pairs.

        Args:
            student: `(n, ...)` features.
            teacher: Features of the same `n`; no gradient reaches them.

        Raises:
            InputError: If they are not of one batch.
        """
        student, teacher = rows(student, teacher)
        return F.mse_loss(directions(inner_products(student)), directions(inner_products(teacher)))
