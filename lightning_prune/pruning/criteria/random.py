"""Chance: the control that every other criterion has to beat."""

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.arguments import whole_number
from lightning_prune.pruning.criteria.criterion import Criterion


@dataclass(frozen=True)
class Random(Criterion):
    """Score units at random; the draw follows from `seed` and the weights alone, and no other draw notices.

    So every process, and a resumed run, chooses the same units, and different layers choose independently.

    Args:
        seed: Number of the draw, at least 0.

    Raises:
        InputError: If `seed` is not a whole number of at least 0.

    >>> units = torch.eye(3)
    >>> torch.equal(Random()(units), Random()(units)), torch.equal(Random(seed=1)(units), Random()(units))
    (True, False)
    """

    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("seed", self.seed, least=0)

    def __call__(self, units: Tensor) -> Tensor:
        """Return `(n_units,)` scores in [0, 1) for `(n_units, unit_size)` weights."""
        bits = units.detach().cpu().contiguous().view(torch.uint8)
        generator = torch.Generator().manual_seed(zlib.crc32(bits.numpy().data, self.seed))
        return torch.rand(len(units), generator=generator).to(units.device)
