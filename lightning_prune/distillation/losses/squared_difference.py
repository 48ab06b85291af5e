"""What the losses that compare features by their squared difference share."""

import torch
from torch import Tensor
from torch.nn import functional as F


def squared_difference(student: Tensor, teacher: Tensor, *, relative: bool) -> Tensor:
    """Return the mean squared difference of two tensors of the same shape, any.

    Args:
        student: The student's.
        teacher: The teacher's.
        relative: Whether it is divided by the mean square of the teacher's: 0 if both are the same, 1 if the student's
            is zero, however many elements they have and however large these are.
    """
    difference = F.mse_loss(student, teacher)
    if not relative:
        return difference
    size = teacher.square().mean()
    return difference / torch.where(size > 0, size, 1.0)
