"""What a distillation loss is, and how it takes in what it compares."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_prune.errors import InputError

LogitLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""The logits of student and teacher, `(n, classes)`, and labels, `(n,)` or None, to a scalar."""

FeatureLoss = Callable[[Tensor, Tensor], Tensor]
"""The features of student and teacher, `(n, ...)`, to a scalar; torch's own losses of two tensors fit as well."""


def pair(student: Tensor, teacher: Tensor, fits: bool, expected: str) -> tuple[Tensor, Tensor]:
    """Return both in one dtype of at least single precision, the teacher as a constant.

    Args:
        student: The student's tensor, of any shape.
        teacher: The teacher's.
        fits: Whether their shapes can be compared.
        expected: What the shapes should be, for the message.

    Raises:
        InputError: If they do not fit.
    """
    if not fits:
        raise InputError(f"expected {expected}, got student {tuple(student.shape)} and teacher {tuple(teacher.shape)}")
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.detach().to(dtype)
