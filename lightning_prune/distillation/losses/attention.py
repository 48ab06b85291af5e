"""Where a layer looks (attention transfer)."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lightning_prune.arguments import flag
from lightning_prune.distillation.losses.pair import pair
from lightning_prune.distillation.losses.squared_difference import squared_difference


@dataclass(frozen=True)
class Attention:
    """Compare attention maps: the mean over channels of the squared activation, of length 1 for each sample.

    The number of channels may differ. Where height or width differ, the larger features are averaged down to the
    smaller.

    Args:
        relative: Sum over the positions of a map: 0 for the same map, 2 for one that looks elsewhere, whatever its
            size. False for the mean over positions, as in the paper's code, whose weight of 1000 belongs to images of
            32 x 32 pixels and more: the fewer positions, the more it is, and 250 for a map of 2 x 2 keeps a network
            from learning anything else.

    Raises:
        InputError: If `relative` is neither True nor False.

    Reference:
        Zagoruyko and Komodakis, Paying More Attention to Attention, 2017, arXiv:1612.03928 (activation-based); the
        paper takes the norm, its code the mean of the squares.

    >>> import torch
    >>> student, teacher = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]], [[0.0, 4.0]]]])
    >>> Attention()(student, teacher), Attention(relative=False)(student, teacher)
    (tensor(2.), tensor(1.))
    """

    relative: bool = True

    def __post_init__(self) -> None:
        flag("relative", self.relative)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the squared difference of the maps, a mean over the batch.

        Args:
            student: `(n, channels, height, width)` features.
            teacher: Features of the same `n`; no gradient reaches them.

        Raises:
            InputError: If the shapes do not fit.
        """
        fits = student.ndim == teacher.ndim == 4 and len(student) == len(teacher)
        student, teacher = pair(student, teacher, fits, "features (n, channels, height, width) of one batch")
        height, width = map(min, zip(student.shape[2:], teacher.shape[2:], strict=True))
        maps = (attention_map(features, (height, width)) for features in (student, teacher))
        return squared_difference(*maps, relative=self.relative)


def attention_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the maps `(n, height * width)` of `(n, channels, ...)` features averaged down to `size`."""
    return F.normalize(F.adaptive_avg_pool2d(features, size).square().mean(1).flatten(1))
