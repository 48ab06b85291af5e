"""The features of a layer as a hint (FitNets)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lightning_prune.distillation.losses.pair import pair


@dataclass(frozen=True)
class Hint:
    """Compare features by their mean squared difference.

    Reference:
        Romero et al., FitNets: Hints for Thin Deep Nets, 2015, arXiv:1412.6550, which takes half of the sum instead of
        the mean; with the mean a weight of 100 is common.

    >>> import torch
    >>> Hint()(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]]))
    tensor(2.)
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean over all elements.

        Args:
            student: `(n, ...)` features, where the widths differ behind an adapter.
            teacher: Features of the same shape; no gradient reaches them.

        Raises:
            InputError: If the shapes differ.
        """
        fits = student.shape == teacher.shape
        return F.mse_loss(*pair(student, teacher, fits, "features of one shape (adapt=True makes them so)"))
