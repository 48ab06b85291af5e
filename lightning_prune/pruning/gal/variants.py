"""What the paper of GAL and its code do differently."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_prune.pruning.gal.discriminator import discriminator, official_discriminator


@dataclass(frozen=True)
class Variant:
    """One way to search.

    Args:
        discriminator: Builds it from the number of its inputs and a seed.
        undecided: What it gives an output that it takes for either network's.
        initial: The masks to begin with, `(n,)`, from their number and a seed.
        ahead: Take gradients at FISTA's extrapolated point, averaged over the steps between two updates, with the L1
            norm in the proximal step alone; if not, at the masks, of the last step alone, with it also in the gradient.
        evaluating: Whether the baseline normalizes by its running statistics.
    """

    discriminator: Callable[[int, int], nn.Sequential]
    undecided: float
    initial: Callable[[int, int], Tensor]
    ahead: bool
    evaluating: bool


PAPER = Variant(
    discriminator,
    undecided=0.0,
    initial=lambda number, seed: torch.ones(number),
    ahead=True,
    evaluating=True,
)
OFFICIAL = Variant(
    official_discriminator,
    undecided=0.5,
    initial=lambda number, seed: torch.randn(number, generator=torch.Generator().manual_seed(seed)),
    ahead=False,
    evaluating=False,
)
VARIANTS = {"paper": PAPER, "official": OFFICIAL}
