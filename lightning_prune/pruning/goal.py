"""What of a model is pruned, and how far: what a user asks for, and what that is in a model."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import get_args

from torch import nn

from lightning_prune.arguments import instance, items, one_of
from lightning_prune.errors import InputError
from lightning_prune.graph import LayerPatterns, check_each, check_patterns
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.counts import Rounding, check_sparsity
from lightning_prune.pruning.finding import Skip, Uncut, find_prunables
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.prunable import Prunable
from lightning_prune.pruning.quota import Quota, Scope, Sparsity
from lightning_prune.slimming import TracedModel


class Goal:
    """What of a model is pruned, and to which sparsity.

    Args:
        granularity: How weights are cut into units.
        sparsity: Fraction of the units that go, or fractions by layer name pattern; None for what the granularity fixes
            by itself.
        scope: Where units compete.
        floor: Fraction of its units that every layer keeps in global scope, in [0, 1), at least one.
        skip: Layers left as they are; see `lightning_prune.pruning.finding.Skip`.
        uncut: Treatment of layers that the granularity cannot cut, or that lack what a criterion scores.
        rounding: How the number of units that a layer loses is rounded.

    Raises:
        InputError: If an argument is out of range, or does not fit another.
    """

    def __init__(
        self,
        granularity: Granularity,
        sparsity: Sparsity | None,
        scope: Scope = "layer",
        floor: float = 0.0,
        skip: Collection[Skip] = (),
        uncut: Uncut = "skip",
        rounding: Rounding = "round",
    ) -> None:
        self.granularity: Granularity = instance("granularity", Granularity, granularity, Element)
        self.quota = Quota(_settled(sparsity, granularity), scope, floor, rounding)
        self.skip = tuple(items("skip", skip, "'first', 'last', 'depthwise' and patterns of layer names"))
        if self.skip:
            check_patterns("skip", self.skip)
        self.uncut: Uncut = one_of("uncut", uncut, get_args(Uncut))

    def prunables(self, model: nn.Module, traced: TracedModel | None) -> list[Prunable] | None:
        """Return what can be pruned in a model; None if it has to be `traced` for that, and is not.

        Raises:
            InputError: If there is nothing, or a layer cannot be cut and is to be refused.
        """
        return find_prunables(model, traced, self.granularity, self.skip, self.uncut)

    def settle(self, model: nn.Module, prunables: Sequence[Prunable]) -> Competition:
        """Return those of a model's `prunables` that are to lose units, with their final sparsities.

        Raises:
            InputError: If a pattern matches no layer that can be pruned, or the scope does not suit the granularity.
        """
        wanted = dict(zip(prunables, self.quota.shares(prunables, LayerPatterns(model)), strict=True))
        losing = {prunable: sparsity for prunable, sparsity in wanted.items() if sparsity > 0}
        return Competition(list(losing), list(losing.values()), self.quota)

    def find(self, model: nn.Module, traced: TracedModel | None = None) -> Competition | None:
        """Return what is to lose units in a model, and how many; None if it has to be `traced`.

        Raises:
            InputError: As `prunables` and `settle`.
        """
        found = self.prunables(model, traced)
        return None if found is None else self.settle(model, found)


def _settled(sparsity: Sparsity | None, granularity: Granularity) -> Sparsity:
    """Return the sparsity that is asked for, or that the granularity fixes by itself.

    Raises:
        InputError: If neither gives one, they differ, or a fraction is not in [0, 1).
    """
    fixed = granularity.sparsity
    if sparsity is None:
        if fixed is None:
            raise InputError(
                f"expected a sparsity in [0, 1) for granularity {granularity!r}, got None; give sparsity=0.4, say"
            )
        return fixed
    sparsity = check_each("sparsity", sparsity, lambda name, value: check_sparsity(value, name))
    for value in sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]:
        if fixed is not None and value != 0 and not math.isclose(value, fixed, rel_tol=1e-3):
            raise InputError(
                f"expected sparsity {fixed:.4g} for {granularity!r}, which fixes it, got {value}; leave it out, at the "
                "command line with sparsity=null"
            )
    return sparsity
