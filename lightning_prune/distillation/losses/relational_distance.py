"""How far samples lie from each other (relational distillation, RKD-D)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_prune.distillation.losses.relations import rows


@dataclass(frozen=True)
class RelationalDistance:
    """Compare the distances between the samples of a batch, as multiples of their mean, by the Huber loss.

    Embeddings of any two widths fit; scale, shift and rotation do not count.

    Reference:
        Park et al., Relational Knowledge Distillation, 2019, arXiv:1904.05068 (distance-wise). A mean over pairs in
        place of the paper's sum; a weight of 25 beside one of 50 for the angles is common, in runs of
        240 epochs, and slows a short one down.

    >>> RelationalDistance()(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [2.0], [2.0]]))
    tensor(0.1250)
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over the `n * n` pairs.

        Args:
            student: `(n, ...)` embeddings.
            teacher: Embeddings of the same `n`; no gradient reaches them.

        Raises:
            InputError: If they are not of one batch.
        """
        student, teacher = rows(student, teacher)
        return F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))


def relative_distances(embeddings: Tensor) -> Tensor:
    """Return the distances `(n, n)` of `(n, features)`, divided by their mean over pairs; zeros if all are the same."""
    # The exact form, not the one by inner products, which rounds the distances of near duplicates.
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / max(1, len(embeddings) * (len(embeddings) - 1))
    return distances / torch.where(mean > 0, mean, 1.0)
