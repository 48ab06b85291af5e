"""From what competes and how important it is to masks."""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from lightning_prune.pruning.counts import kept_at_least, nearest, prune, prune_each, prune_together, put_first
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.lowest import lowest
from lightning_prune.pruning.pools import Pool, join

Scope = Literal["layer", "global", "erdos_renyi_kernel"]
"""Where units compete.

* `"layer"`: each layer loses its own sparsity.
* `"global"`: the units of all layers that are to have the same sparsity compete with each other.
* `"erdos_renyi_kernel"`: each layer loses its own, the more the larger it is, and all together the sparsity that is
  asked for: the density of a weight `(out, in, kh, kw)` is proportional to `(out + in + kh + kw) / (out in kh kw)`.
  Evci et al., Rigging the Lottery, 2020, arXiv:1911.11134.
"""


def score(pools: Sequence[Pool], criterion: Criterion, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return `(n_units,)` scores of each pool, of tensors by parameter name, in memory of their own."""
    scores = []
    for pool in pools:
        units = pool.matrix(tensors, criterion.reads)
        own = criterion(units)
        scores.append(own.clone() if own.untyped_storage().data_ptr() == units.untyped_storage().data_ptr() else own)
    return scores


def choose(
    pools: Sequence[Pool],
    scores: Sequence[Tensor],
    sparsities: Sequence[float],
    scope: Scope = "layer",
    floor: float = 0.0,
    held: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return masks that remove the units with the lowest scores.

    Args:
        pools: What competes.
        scores: `(n_units,)` for each pool; overwritten, because memory for as many again takes as long as the choice.
        sparsities: Fraction of its units that each pool loses, in [0, 1), as nearly as its widths allow.
        scope: Where they compete.
        floor: Fraction of its units that every pool keeps in global scope, in [0, 1), at least one.
        held: Masks in force, of any number format: what they remove goes first and counts. None if there are none.

    Returns:
        bool masks by parameter name, True = kept, that broadcast over the parameters.
    """
    if held:
        for pool, own in zip(pools, scores, strict=True):
            put_first(own, pool.kept(held))
    removable = [_removable(pool, own) for pool, own in zip(pools, scores, strict=True)]
    if scope != "global":
        chosen = prune_each(scores, sparsities, removable, [pool.runs for pool in pools])
        return _masks(pools, _fitting(pools, scores, chosen), held)
    pruned: dict[int, Tensor] = {}
    for sparsity in dict.fromkeys(sparsities):
        rivals = [i for i, own in enumerate(sparsities) if own == sparsity]
        chosen = prune_together([scores[i] for i in rivals], sparsity, [removable[i] for i in rivals], floor)
        pruned.update(zip(rivals, chosen, strict=True))
    return _masks(pools, _fitting(pools, scores, [pruned[i] for i in range(len(pools))], floor), held)


def _removable(pool: Pool, scores: Tensor) -> Tensor | None:
    """Return which units may go: where only some widths may stay, all but the best, as many as the smallest of them."""
    if pool.widths is None:
        return pool.removable(scores)
    return lowest([scores], pool.size - pool.widths[0])[0]


def _fitting(
    pools: Sequence[Pool], scores: Sequence[Tensor], pruned: Sequence[Tensor], floor: float = 0.0
) -> list[Tensor]:
    """Return choices that leave widths that may stay: without the best units in them, or with the next worst."""
    result = []
    for pool, own, chosen in zip(pools, scores, pruned, strict=True):
        if pool.widths is not None:
            kept = pool.size - int(chosen.count_nonzero())
            chosen = lowest([own], pool.size - nearest(pool.widths, kept, kept_at_least(pool.size, floor)))[0]
        result.append(chosen)
    return result


def choose_mixed(
    pools: Sequence[Pool],
    mix: Mix,
    tensors: Mapping[str, Tensor],
    sparsities: Sequence[float],
    held: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return masks that remove what one criterion after the other finds least important; see `choose`."""
    pruned = [
        prune(
            pool.matrix(tensors, Criterion.reads),
            mix,
            sparsity,
            gone=~pool.kept(held).bool() if held else None,
            widths=pool.widths,
        )
        for pool, sparsity in zip(pools, sparsities, strict=True)
    ]
    return _masks(pools, pruned, held)


def _masks(pools: Sequence[Pool], pruned: Sequence[Tensor], held: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    masks: dict[str, Tensor] = {}
    for pool, chosen in zip(pools, pruned, strict=True):
        keep = chosen.logical_not_()
        join(masks, pool.masks(keep.logical_and_(pool.kept(held)) if held else keep))
    others = {name: mask.bool() for name, mask in (held or {}).items() if name not in masks}
    return masks | others  # what was pruned stays pruned, also where nothing competes any more
