"""What the losses of logits share."""

from torch import Tensor
from torch.nn import functional as F

from lightning_prune.arguments import number
from lightning_prune.distillation.losses.pair import pair


def check_temperature(temperature: float) -> None:
    """Refuse what logits cannot be divided by.

    Raises:
        InputError: If it is not a finite number greater than 0.
    """
    number("temperature", temperature, "(0, inf)")


def soften(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the logits of both, `(n, classes)`, divided by the temperature, the teacher's as a constant.

    Raises:
        InputError: If the shapes differ, are not `(n, classes)`, or have one class, whose softmax is 1 whatever it is.
    """
    fits = student.ndim == 2 and student.shape == teacher.shape and student.shape[1] > 1
    student, teacher = pair(student, teacher, fits, "logits (n, classes) of the same two or more classes")
    return student / temperature, teacher / temperature


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(teacher || student) of the softmax of `(n, classes)` logits: a sum over classes, a mean over `n`."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
