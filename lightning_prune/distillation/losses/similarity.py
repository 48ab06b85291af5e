"""Which samples look alike to a layer (similarity-preserving distillation)."""

from dataclasses import dataclass

from torch import Tensor

from lightning_prune.arguments import flag
from lightning_prune.distillation.losses.relations import directions, inner_products, rows
from lightning_prune.distillation.losses.squared_difference import squared_difference


@dataclass(frozen=True)
class Similarity:
    """Compare the inner products of the samples of a batch, scaled to length 1 for each sample.

    Features of any two shapes fit; their scale does not count.

    Args:
        relative: Sum over the samples that one is compared with, so that the size of the batch does not count either.
            False for the paper's mean over them; its weight of 3000 belongs to batches of 128 or more.

    Raises:
        InputError: If `relative` is neither True nor False.

    Reference:
        Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682, equation 4.

    >>> import torch
    >>> student, teacher = torch.eye(2), torch.ones(2, 1)
    >>> Similarity()(student, teacher), Similarity(relative=False)(student, teacher)
    (tensor(0.5858), tensor(0.2929))
    """

    relative: bool = True

    def __post_init__(self) -> None:
        flag("relative", self.relative)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the squared difference, a mean over the `n` samples.

        Args:
            student: `(n, ...)` features.
            teacher: Features of the same `n`; no gradient reaches them.

        Raises:
            InputError: If they are not of one batch.
        """
        student, teacher = rows(student, teacher)
        looks = (directions(inner_products(features)) for features in (student, teacher))
        return squared_difference(*looks, relative=self.relative)
