"""What is left of a model when channels, blocks and branches go, counted without cutting it."""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_prune.slimming.channels.coupling import Coupling
from lightning_prune.slimming.channels.removal import Removal

Kept = dict[str, dict[int, Tensor]]
"""By name and dimension of a stored tensor the positions that stay, `(kept,)`, for tensors that have lost some.

Of a tensor that is gone as a whole, none stay along dimension 0.
"""


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Args:
        macs: Multiply-accumulates of its convolutions and linear layers, for the whole example batch: for ratios.
        parameters: Number of elements of its parameters.
    """

    macs: int
    parameters: int


def kept_positions(coupling: Coupling, removal: Removal) -> Kept:
    """Return which positions of a model's tensors stay."""
    kept: Kept = defaultdict(dict)
    for slot in coupling.facts.slots:
        lost = removal.channels[coupling.channel[slot.labels]]
        if lost.any():
            kept[slot.name][slot.dim] = (~lost).nonzero().reshape(-1)
    nothing = torch.zeros(0, dtype=torch.int64)
    return dict(kept) | {name: {0: nothing} for name in removal.stored}


def group_counts(coupling: Coupling, kept: Kept) -> dict[str, int]:
    """Return how many groups are left in convolutions and group norms that lose whole ones, by weight name."""
    widths = coupling.facts.whole_groups.items()
    return {name: len(kept[name][0]) // width for name, width in widths if 0 in kept.get(name, {})}


def model_size(coupling: Coupling, removal: Removal | None = None) -> Size:
    """Return how large a model is without what goes; by default nothing does."""
    kept = {} if removal is None else kept_positions(coupling, removal)
    left = {name: _numel(shape, kept.get(name, {})) for name, shape in coupling.shapes.items()}
    return Size(
        macs=sum(left[name] * positions for name, positions in coupling.facts.costs),
        parameters=sum(left[name] for name in coupling.parameters),
    )


def _numel(shape: torch.Size, dims: dict[int, Tensor]) -> int:
    """Return how many elements a tensor has of which some positions stay."""
    return torch.Size([len(dims[dim]) if dim in dims else old for dim, old in enumerate(shape or (1,))]).numel()
