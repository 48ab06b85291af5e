"""What the losses of relations between samples share."""

import torch
from torch import Tensor

from lightning_prune.distillation.losses.pair import pair


def rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of both as one row for each sample, `(n, features)`, the teacher's as a constant.

    Raises:
        InputError: If they are not of one batch.
    """
    fits = student.ndim > 1 and teacher.ndim > 1 and len(student) == len(teacher)
    student, teacher = pair(student, teacher, fits, "features (n, ...) of one batch")
    return student.flatten(1), teacher.flatten(1)


def inner_products(vectors: Tensor) -> Tensor:
    """Return all inner products `(..., n, n)` of `(..., n, features)`, under autocast as exact as without."""
    with torch.autocast(vectors.device.type, enabled=False):
        return vectors @ vectors.mT


def directions(vectors: Tensor) -> Tensor:
    """Return `(..., features)` vectors at length 1; zeros stay zero, and their gradient stays finite."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors / torch.where(norms > 0, norms, 1.0)
