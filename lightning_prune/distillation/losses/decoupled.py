"""Decoupled knowledge distillation (DKD): the target class apart from the others."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.arguments import number
from lightning_prune.distillation.losses.temperature import check_temperature, divergence, soften
from lightning_prune.errors import InputError


@dataclass(frozen=True)
class Decoupled:
    """Compare how likely the target class is, and, on their own, how likely the others are among themselves.

    The loss is `T² (alpha TCKD + beta NCKD)`. Hinton's is the same with alpha = 1 and, for each sample, the teacher's
    probability of the other classes in place of beta: the surer the teacher, the less it would tell of them.

    Args:
        alpha: Weight of TCKD, the divergence of the probabilities of target and not target.
        beta: Weight of NCKD, the divergence of the probabilities of the others. The paper uses 2 to 8 on CIFAR-100;
            with 8 a network cannot learn faster than from its teacher, however little that knows.
        temperature: T, by which the logits are divided.

    Raises:
        InputError: If a weight is negative or the temperature not greater than 0.

    Reference:
        Zhao et al., Decoupled Knowledge Distillation, 2022, arXiv:2203.08679; alpha and temperature from its code,
        which also lets the loss grow to its full weight over the first 20 of 240 epochs.

    >>> student, teacher = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[3.0, 0.5, -1.0]])
    >>> Decoupled(beta=8.0)(student, teacher, torch.tensor([0]))
    tensor(0.6081)
    """

    alpha: float = 1.0
    beta: float = 1.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        number("alpha", self.alpha, "[0, inf)")
        number("beta", self.beta, "[0, inf)")

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, a mean over the batch.

        Args:
            student: `(n, classes)` logits.
            teacher: `(n, classes)` logits; no gradient reaches them.
            labels: `(n,)` target classes, whole numbers; None is refused.

        Raises:
            InputError: If there are no labels, or the shapes do not fit.
        """
        student, teacher = soften(student, teacher, self.temperature)
        if labels is None or labels.shape != student.shape[:1] or labels.is_floating_point():
            got = "none" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
            raise InputError(
                f"expected whole-number labels of shape {tuple(student.shape[:1])} for logits {tuple(student.shape)}, "
                f"got {got}; use Hinton where labels are missing or mixed"
            )
        student_target, student_others = split(student, labels)
        teacher_target, teacher_others = split(teacher, labels)
        tckd = divergence(student_target, teacher_target)
        nckd = divergence(student_others, teacher_others)
        return self.temperature**2 * (self.alpha * tckd + self.beta * nckd)


def split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of target and not target, `(n, 2)`, and those of the other classes, `(n, classes - 1)`.

    Args:
        logits: `(n, classes)`.
        labels: `(n,)` target classes.
    """
    target = labels.long()[:, None]
    others = torch.arange(logits.shape[1] - 1, device=logits.device)
    # Left out rather than set to -inf, whose product with a probability of 0 would be NaN.
    rest = logits.gather(1, others + (others >= target))
    return torch.cat([logits.gather(1, target), rest.logsumexp(1, keepdim=True)], dim=1), rest
