"""Knowledge distillation as it began: the teacher's softened probabilities are the target."""

from dataclasses import dataclass

from torch import Tensor

from lightning_prune.distillation.losses.temperature import check_temperature, divergence, soften


@dataclass(frozen=True)
class Hinton:
    """Compare probabilities by `T² KL(p_teacher || p_student)`, with `p = softmax(logits / T)`.

    Through the factor T² the gradient, `T (p_student - p_teacher) / n`, does not vanish at a high temperature.

    Args:
        temperature: T; the higher it is, the more the small probabilities count.

    Raises:
        InputError: If the temperature is not greater than 0.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531, equation 1 (the softmax)
        and section 2 (the factor).

    >>> import torch
    >>> Hinton()(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[3.0, 0.5, -1.0]]))
    tensor(0.3794)
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the loss, a mean over the batch.

        Args:
            student: `(n, classes)` logits.
            teacher: `(n, classes)` logits; no gradient reaches them.
            labels: Not looked at.

        Raises:
            InputError: If the shapes do not fit.
        """
        return self.temperature**2 * divergence(*soften(student, teacher, self.temperature))
