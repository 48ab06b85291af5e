"""The features of a layer as a hint (FitNets)."""

from dataclasses import dataclass

from torch import Tensor

from lightning_prune.arguments import flag
from lightning_prune.distillation.losses.pair import pair
from lightning_prune.distillation.losses.squared_difference import squared_difference


@dataclass(frozen=True)
class Hint:
    """Compare features by their squared difference.

    Args:
        relative: Divide it by the mean square of the teacher's features, whose scale is another in every network:
            0 for the same features, 1 for zeros. False for the mean over elements as it is; a weight of 100 is common.

    Raises:
        InputError: If `relative` is neither True nor False.

    Reference:
        Romero et al., FitNets: Hints for Thin Deep Nets, 2015, arXiv:1412.6550, which takes half of the sum instead of
        the mean.

    >>> import torch
    >>> student, teacher = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 3.0]])
    >>> Hint()(student, teacher), Hint(relative=False)(student, teacher)
    (tensor(0.1000), tensor(0.5000))
    """

    relative: bool = True

    def __post_init__(self) -> None:
        flag("relative", self.relative)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, over all elements.

        Args:
            student: `(n, ...)` features, where the widths differ behind an adapter.
            teacher: Features of the same shape; no gradient reaches them.

        Raises:
            InputError: If the shapes differ.
        """
        fits = student.shape == teacher.shape
        features = pair(student, teacher, fits, "features of one shape (adapt=True makes them so)")
        return squared_difference(*features, relative=self.relative)
