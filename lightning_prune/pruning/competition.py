"""What competes in a model, and which of it goes: from scores to masks."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.finding import Uncut
from lightning_prune.pruning.prunable import Prunable, join
from lightning_prune.pruning.quota import Quota
from lightning_prune.pruning.selection import put_first, select_alone

log = logging.getLogger(__name__)

Schedule = Callable[[float, float], float]
"""The sparsity at a progress in [0, 1] on the way to a final one, both fractions of units."""


@dataclass(frozen=True, eq=False)
class Competition:
    """Units of a model of which some are to go.

    Args:
        prunables: What competes.
        sparsities: Fraction of its units that each of them loses, in [0, 1), as nearly as its widths allow.
        quota: Against which others its units compete, and how their number is rounded.
    """

    prunables: Sequence[Prunable]
    sparsities: Sequence[float]
    quota: Quota

    def at(self, schedule: Schedule, progress: float) -> "Competition":
        """Return the same with the sparsities that a schedule has at `progress` in [0, 1] on the way to these."""
        return replace(self, sparsities=[schedule(progress, final) for final in self.sparsities])

    def readable(self, criterion: Criterion, uncut: Uncut) -> "Competition":
        """Return it without what lacks what a criterion scores, a batch norm say; that stays, and the log names it.

        Raises:
            InputError: If nothing is left, or what lacks it is to be refused.
        """
        left: dict[Prunable, float] = {}
        problems: list[InputError] = []
        layers: list[str] = []
        for prunable, sparsity in zip(self.prunables, self.sparsities, strict=True):
            try:
                prunable.names(criterion.reads)
            except InputError as problem:
                problems.append(problem)
                layers += prunable.layers
            else:
                left[prunable] = sparsity
        if problems and (uncut == "refuse" or not left):
            raise problems[0]
        if problems:
            log.warning("%s leaves %s as they are; the first because: %s", criterion, ", ".join(layers), problems[0])
        return replace(self, prunables=list(left), sparsities=list(left.values()))

    def check(self) -> None:
        """Refuse, before there are scores, what the floor forbids.

        Raises:
            InputError: If layers would have to keep more than the sparsity leaves.
        """
        self.quota.check(self.prunables, self.sparsities)

    def check_schedule(self, schedule: Schedule) -> None:
        """Refuse a schedule that does not end at these sparsities.

        Raises:
            InputError: If it ends elsewhere.
        """
        for final in dict.fromkeys(self.sparsities):
            if abs(schedule(1.0, final) - final) > 1e-6:
                raise InputError(
                    f"expected a schedule that reaches sparsity {final} at its end, got {schedule!r}, which ends at "
                    f"{schedule(1.0, final)}"
                )

    def choose(
        self,
        criterion: Criterion,
        weights: Mapping[str, Tensor],
        held: Mapping[str, Tensor] | None = None,
        owned: bool = True,
    ) -> dict[str, Tensor]:
        """Return masks that remove what a criterion finds least important in the weights alone; see `choose_lowest`.

        Args:
            criterion: Scores of units.
            weights: By parameter name, of any shape.
            held: Masks in force, which broadcast over them.
            owned: Mask all that exists for channels, not the filters alone.
        """
        scores = [
            self._score(prunable, sparsity, criterion, weights, held)
            for prunable, sparsity in zip(self.prunables, self.sparsities, strict=True)
        ]
        return self.choose_lowest(scores, held, owned, [share for _, share in criterion.stages])

    def choose_lowest(
        self,
        scores: Sequence[Tensor],
        held: Mapping[str, Tensor] | None = None,
        owned: bool = True,
        stages: Sequence[float] = (1.0,),
    ) -> dict[str, Tensor]:
        """Return masks that remove the units with the lowest scores.

        Args:
            scores: `(n_units,)` for each prunable; overwritten, because memory for as many again takes as long as the
                choice.
            held: Masks in force, of any number format: what they remove goes first and counts. None if there are none.
            owned: Mask all that exists for channels, not the filters alone.
            stages: Shares that are rounded on their own; see `Quota.numbers`.

        Returns:
            bool masks by parameter name, True = kept, that broadcast over the parameters.
        """
        if held:
            for prunable, own in zip(self.prunables, scores, strict=True):
                put_first(own, prunable.kept(held))
        masks: dict[str, Tensor] = {}
        chosen = self.quota.select(self.prunables, scores, self.sparsities, stages)
        for prunable, pruned in zip(self.prunables, chosen, strict=True):
            keep = pruned.logical_not_()
            join(masks, prunable.masks(keep.logical_and_(prunable.kept(held)) if held else keep, owned))
        others = {name: mask.bool() for name, mask in (held or {}).items() if name not in masks}
        return masks | others  # what was pruned stays pruned, also where nothing competes any more

    def _score(
        self,
        prunable: Prunable,
        sparsity: float,
        criterion: Criterion,
        weights: Mapping[str, Tensor],
        held: Mapping[str, Tensor] | None,
    ) -> Tensor:
        """Return `(n_units,)` scores in memory of their own, `-inf` for what goes in all stages but the last."""
        units = prunable.matrix(weights, criterion.reads)
        (first, _), *later = criterion.stages
        scores = first(units)
        if scores.untyped_storage().data_ptr() == units.untyped_storage().data_ptr():
            scores = scores.clone()
        numbers = self.quota.numbers(prunable, sparsity, [share for _, share in criterion.stages])
        for number, (then, _) in zip(numbers, later, strict=False):
            if held:
                put_first(scores, prunable.kept(held))
            rest = ~select_alone(scores, number, prunable.removable(scores), prunable.runs)
            left = then(units[rest])
            scores = left.new_full(scores.shape, -math.inf).masked_scatter_(rest, left)
        return scores
