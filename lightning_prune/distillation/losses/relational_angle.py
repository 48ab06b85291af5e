"""Under which angles samples see each other (relational distillation, RKD-A)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lightning_prune.distillation.losses.relations import directions, inner_products, rows


@dataclass(frozen=True)
class RelationalAngle:
    """Compare the cosines of the angles in every triangle of samples of a batch by the Huber loss.

    Embeddings of any two widths fit; scale, shift and rotation do not count. Memory grows with `n² * (n + features)`:
    meant for pooled features.

    Reference:
        Park et al., Relational Knowledge Distillation, 2019, arXiv:1904.05068 (angle-wise). A mean over triples in
        place of the paper's sum; a weight of 50 beside one of 25 for the distances is common, in runs of
        240 epochs, and slows a short one down.

    >>> import torch
    >>> RelationalAngle()(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [2.0], [1.0]]))
    tensor(0.2222)
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over the `n * n * n` triples.

        Args:
            student: `(n, ...)` embeddings.
            teacher: Embeddings of the same `n`; no gradient reaches them.

        Raises:
            InputError: If they are not of one batch.
        """
        student, teacher = rows(student, teacher)
        return F.smooth_l1_loss(cosines(student), cosines(teacher))


def cosines(embeddings: Tensor) -> Tensor:
    """Return `(n, n, n)`: for each row of `(n, features)` the cosines of the angles at which it sees two others."""
    return inner_products(directions(embeddings[None] - embeddings[:, None]))
