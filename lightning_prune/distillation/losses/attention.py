"""Where a layer looks (attention transfer)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lightning_prune.distillation.losses.pair import pair


@dataclass(frozen=True)
class Attention:
    """Compare attention maps: the mean over channels of the squared activation, of length 1 for each sample.

    The number of channels may differ. Where height or width differ, the larger features are averaged down to the
    smaller.

    Reference:
        Zagoruyko and Komodakis, Paying More Attention to Attention, 2017, arXiv:1612.03928 (activation-based). The mean
        over the map, to which the usual weight of 1000 belongs, is that of its code; the paper takes the norm.

    >>> import torch
    >>> Attention()(torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]]]]))
    tensor(1.)
    """

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared difference of the maps over batch and positions.

        Args:
            student: `(n, channels, height, width)` features.
            teacher: Features of the same `n`; no gradient reaches them.

        Raises:
            InputError: If the shapes do not fit.
        """
        fits = student.ndim == teacher.ndim == 4 and len(student) == len(teacher)
        student, teacher = pair(student, teacher, fits, "features (n, channels, height, width) of one batch")
        height, width = map(min, zip(student.shape[2:], teacher.shape[2:], strict=True))
        return F.mse_loss(attention_map(student, (height, width)), attention_map(teacher, (height, width)))


def attention_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maps `(n, height * width)` of `(n, channels, ...)` features averaged down to `size`."""
    return F.normalize(F.adaptive_avg_pool2d(features, size).square().mean(1).flatten(1))
