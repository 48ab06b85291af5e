"""How many units go: from the fractions that a user asks for to the number that each layer loses."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from lightning_prune.arguments import one_of
from lightning_prune.errors import InputError
from lightning_prune.graph import LayerPatterns, by_layer, check_each
from lightning_prune.pruning.counts import (
    Rounding,
    check_floor,
    check_sparsity,
    count,
    kept_at_least,
    nearest_width,
)
from lightning_prune.pruning.lowest import lowest
from lightning_prune.pruning.prunable import Prunable
from lightning_prune.pruning.selection import select_alone, select_together

Scope = Literal["layer", "global", "erdos_renyi_kernel"]
"""Where units compete.

* `"layer"`: each layer loses its own sparsity.
* `"global"`: the units of all layers that are to have the same sparsity compete with each other.
* `"erdos_renyi_kernel"`: each layer loses its own, the more the larger it is, and all together the sparsity that is
  asked for: the density of a weight `(out, in, kh, kw)` is proportional to `(out + in + kh + kw) / (out in kh kw)`.
  Evci et al., Rigging the Lottery, 2020, arXiv:1911.11134.
"""

Sparsity = float | Mapping[str, float]
"""One fraction of units for every layer, or one for each layer name pattern, of which the first that matches counts."""


@dataclass(frozen=True)
class Quota:
    """How many units go: the one place that decides it, for every method that is told a sparsity.

    Args:
        sparsity: Fraction of the units that go, in [0, 1), or fractions by layer name pattern.
        scope: Where units compete.
        floor: Fraction of its units that every layer keeps in global scope, in [0, 1), at least one.
        rounding: How the number of units of a layer is rounded.

    Raises:
        InputError: If an argument is out of range, or does not fit another.
    """

    sparsity: Sparsity
    scope: Scope = "layer"
    floor: float = 0.0
    rounding: Rounding = "round"

    def __post_init__(self) -> None:
        check_each("sparsity", self.sparsity, lambda name, value: check_sparsity(value, name))
        one_of("scope", self.scope, get_args(Scope))
        if isinstance(self.sparsity, Mapping) and self.scope == "erdos_renyi_kernel":
            raise InputError("expected one sparsity for scope='erdos_renyi_kernel', which gives each layer its own")
        check_sparsity(self.floor, "floor")

    @property
    def fraction(self) -> float:
        """The one fraction of all units that go.

        Raises:
            InputError: If there are several, by layer.
        """
        if isinstance(self.sparsity, Mapping):
            raise InputError(f"expected one sparsity for units that all compete, got {dict(self.sparsity)}")
        return self.sparsity

    def number(self, n_units: int) -> int:
        """Return how many of `n_units` go that all compete with each other."""
        return count(n_units, self.fraction, self.rounding)

    def shares(self, prunables: Sequence[Prunable], patterns: LayerPatterns) -> list[float]:
        """Return the fraction of its units that each prunable is to lose in the end: the lowest of any of its layers.

        Layers that no pattern matches are to lose none, and channels never more than one of their layers allows.

        Args:
            prunables: What competes.
            patterns: Of the model that has them.

        Raises:
            InputError: If a pattern matches no layer that can be pruned, or sizes are to tell for anything but one
                sparsity of units of weights.
        """
        if self.scope == "erdos_renyi_kernel":
            return self._by_size(prunables)
        if not isinstance(self.sparsity, Mapping):
            return [self.sparsity] * len(prunables)
        layers = sorted({layer for prunable in prunables for layer in prunable.layers})
        wanted = by_layer("sparsity", self.sparsity, layers, patterns, "a prunable layer that trains")
        found = [min(wanted[layer] for layer in prunable.layers) for prunable in prunables]
        if not any(found) and any(self.sparsity.values()):
            raise InputError(
                f"expected sparsity to match all layers of at least one coupled group, got {dict(self.sparsity)}, "
                "whose layers are all coupled with layers that it does not match; match those too, or use "
                "residual='independent'"
            )
        return found

    def numbers(self, prunable: Prunable, sparsity: float, stages: Sequence[float] = (1.0,)) -> list[int]:
        """Return how many units of each of its runs have gone after each stage of a criterion, alone in their layer.

        Args:
            prunable: What loses them.
            sparsity: Fraction of its units, in [0, 1); as nearly as its widths allow.
            stages: Shares of them that the stages take, 1 in all; each number is rounded on its own.
        """
        size = prunable.size // prunable.runs
        sums = itertools.accumulate(count(size, share * sparsity, self.rounding) for share in stages)
        *before, last = sums
        last = size - nearest_width(prunable.widths, size - last)
        return [*(min(number, last) for number in before), last]

    def select(
        self,
        prunables: Sequence[Prunable],
        scores: Sequence[Tensor],
        sparsities: Sequence[float],
        stages: Sequence[float] = (1.0,),
    ) -> list[Tensor]:
        """Return which units go, those with the lowest scores; `(n_units,)` bool for each prunable, True = pruned.

        Args:
            prunables: What competes.
            scores: `(n_units,)` for each; `-inf` for what is gone.
            sparsities: Fraction of its units that each loses, in [0, 1), as nearly as its widths allow.
            stages: See `numbers`.

        Raises:
            InputError: If the layers would have to keep more than the sparsity leaves.
        """
        if self.scope != "global":
            return [
                select_alone(own, self.numbers(one, sparsity, stages)[-1], one.removable(own), one.runs)
                for one, own, sparsity in zip(prunables, scores, sparsities, strict=True)
            ]
        pruned: dict[int, Tensor] = {}
        for sparsity in dict.fromkeys(sparsities):
            rivals = [i for i, own in enumerate(sparsities) if own == sparsity]
            removable = [_removable(prunables[i], scores[i]) for i in rivals]
            chosen = select_together([scores[i] for i in rivals], sparsity, removable, self.floor)
            pruned.update(zip(rivals, chosen, strict=True))
        return [self._fitting(one, scores[i], pruned[i]) for i, one in enumerate(prunables)]

    def check(self, prunables: Sequence[Prunable], sparsities: Sequence[float]) -> None:
        """Refuse, before there are scores, what the floor forbids.

        Raises:
            InputError: If layers would have to keep more than the sparsity leaves.
        """
        if self.scope == "global":
            for sparsity in dict.fromkeys(sparsities):
                rivals = [one for one, own in zip(prunables, sparsities, strict=True) if own == sparsity]
                free = [one.size - nearest_width(one.widths, 0, least=0) for one in rivals]
                check_floor([one.size for one in rivals], free, sparsity, self.floor)

    def _fitting(self, prunable: Prunable, scores: Tensor, pruned: Tensor) -> Tensor:
        """Return a choice that leaves a width that may stay: without the best units in it, or with the next worst."""
        if prunable.widths is None:
            return pruned
        kept = prunable.size - int(pruned.count_nonzero())
        least = kept_at_least(prunable.size, self.floor)
        return lowest([scores], prunable.size - nearest_width(prunable.widths, kept, least))[0]

    def _by_size(self, prunables: Sequence[Prunable]) -> list[float]:
        shapes = [one.shape for one in prunables if one.shape is not None and one.granularity.sparsity is None]
        if len(shapes) < len(prunables) or isinstance(self.sparsity, Mapping):
            raise InputError(
                "expected scope='layer' or 'global' for channels, fractions by layer, and granularities that fix their "
                "sparsity, got 'erdos_renyi_kernel'"
            )
        return erdos_renyi_kernel(shapes, self.sparsity)


def _removable(prunable: Prunable, scores: Tensor) -> Tensor | None:
    """Return which units may go: where only some widths may stay, all but the best, as many as the smallest of them."""
    if prunable.widths is None:
        return prunable.removable(scores)
    return lowest([scores], prunable.size - prunable.widths[0])[0]


def erdos_renyi_kernel(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return the sparsity of each weight, so that all together have `sparsity`; see `Scope`.

    >>> [round(s, 4) for s in erdos_renyi_kernel([(16, 16, 3, 3), (64, 64, 3, 3)], 0.8)]
    [0.2488, 0.8344]
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while True:
        kept = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        scale = kept / max(1e-12, sum(raw[i] * sizes[i] for i in range(len(raw)) if i not in dense))
        full = {i for i in range(len(raw)) if i not in dense and scale * raw[i] > 1}
        if not full:
            return [0.0 if i in dense else 1 - scale * raw[i] for i in range(len(raw))]
        dense |= full
