"""The soft masks of GAL by layer: which are lowest, which must stay, and how they lie."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.pruning.gal.soft_masks import Maskable
from lightning_prune.pruning.quota import Quota
from lightning_prune.pruning.selection import select_together

EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)


class MaskLayers:
    """How `n` masks belong to structures and to layers, none of which loses all of its units.

    Blocks and branches are one layer, since they compete with each other; channels do so within their own.

    Args:
        structures: What is masked, blocks and branches before groups of channels, in the order of the masks.
    """

    def __init__(self, structures: Sequence[Maskable]) -> None:
        self.names = [structure.name for structure in structures]
        self.sizes = [structure.size for structure in structures]
        self.layers = [size for size in (self.sizes.count(1), *(size for size in self.sizes if size > 1)) if size]

    def by_structure(self, values: Tensor) -> list[Tensor]:
        """Return `(n,)` values as `(n_units,)` of each structure."""
        return list(torch.split(values, self.sizes))

    def lowest(self, scores: Tensor, quota: Quota) -> Tensor:
        """Return `(n,)` bool, which masks a quota of all takes, those with the lowest scores, `(n,)`.

        One of each layer is never among them.

        Raises:
            InputError: If the layers cannot lose so many.
        """
        layers = torch.split(scores, self.layers)
        return torch.cat(select_together(layers, quota.fraction, [None] * len(layers), quota.floor))

    def last(self, values: Tensor, masks: Tensor) -> Tensor:
        """Return `(n,)` bool, in each layer whose `masks`, `(n,)`, are all at zero the one with the highest value."""
        parts = torch.split(values, self.layers), torch.split(masks, self.layers)
        best = [torch.zeros_like(own, dtype=torch.bool).index_fill_(0, own.argmax(), True) for own in parts[0]]
        return torch.cat([one & ~(own > 0).any() for one, own in zip(best, parts[1], strict=True)])

    def census(self, masks: Tensor) -> dict[str, float]:
        """Return how masks, `(n,)`, lie, by name: the share at zero, how many of each are not, a histogram."""
        inner = [(f"{low:g}-{high:g}", (masks > low) & (masks <= high)) for low, high in itertools.pairwise(EDGES)]
        bins = {"0": masks == 0, **dict(inner), f"{EDGES[-1]:g}-": masks > EDGES[-1]}
        shares = torch.stack([inside.float().mean() for inside in bins.values()]).tolist()
        numbers = torch.stack([own.sum() for own in self.by_structure(masks != 0)]).tolist()
        return {
            "removed": shares[0],
            **{f"masks/{name}": share for name, share in zip(bins, shares, strict=True)},
            **{f"kept/{name}": number for name, number in zip(self.names, numbers, strict=True)},
        }
