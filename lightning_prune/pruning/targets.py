"""Which sparsity each layer, or each group of coupled layers, is pruned to."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from lightning.pytorch import LightningModule

from lightning_prune.errors import InputError
from lightning_prune.graph import holder
from lightning_prune.pruning.channel_pools import channel_pools
from lightning_prune.pruning.counts import check_sparsity
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.layer_patterns import by_layer, check_each
from lightning_prune.pruning.pools import Pool, WeightPool, weight_pools
from lightning_prune.pruning.prunable_weights import depthwise_layers, layer_weights
from lightning_prune.pruning.selection import Scope
from lightning_prune.slimming import TracedModel
from lightning_prune.training import instance, one_of

log = logging.getLogger(__name__)

Skip = Literal["first", "last", "depthwise"]
"""Which layers are left as they are, whatever their sparsity: the first or the last registered one that has a weight,
or depthwise convolutions, unless channels are pruned: then those follow the channel that they pass on."""

Uncut = Literal["skip", "refuse"]
"""What happens to a layer whose shape a granularity cannot cut: it is left as it is, or refused before training."""

Sparsity = float | Mapping[str, float]
"""One fraction of units for every layer, or one for each layer name pattern, of which the first that matches counts."""


class Goal:
    """What of a module is pruned, and to which sparsity.

    Args:
        granularity: How weights are cut into units.
        sparsity: Fraction of the units that go, or fractions by layer name pattern; None for what the granularity fixes
            by itself.
        scope: Where units compete.
        floor: Fraction of its units that every layer keeps in global scope, in [0, 1), at least one.
        skip: Layers left as they are.
        uncut: Treatment of layers that the granularity cannot cut.

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
    ) -> None:
        self.granularity: Granularity = instance("granularity", Granularity, granularity)
        self.sparsity = settled(sparsity, granularity)
        self.scope: Scope = one_of("scope", scope, get_args(Scope))
        if isinstance(self.sparsity, Mapping) and scope == "erdos_renyi_kernel":
            raise InputError("expected one sparsity for scope='erdos_renyi_kernel', which gives each layer its own")
        self.floor = check_sparsity(floor, "floor")
        if isinstance(skip, str) or not isinstance(skip, Collection):
            raise InputError(f"expected skip to be a list of {', '.join(get_args(Skip))}, got {skip!r}")
        self.skip: tuple[Skip, ...] = tuple(one_of("skip", layer, get_args(Skip)) for layer in skip)
        self.uncut: Uncut = one_of("uncut", uncut, get_args(Uncut))

    def find(self, module: LightningModule, traced: TracedModel | None) -> dict[Pool, float] | None:
        """Return what is to lose units, and its final sparsity; None if that needs `traced`.

        Raises:
            InputError: As `find_pools` and `shares`.
        """
        pools = find_pools(module, traced, self.granularity, self.skip, self.uncut)
        if pools is None:
            return None
        wanted = shares(pools, self.sparsity, self.scope)
        return {pool: sparsity for pool, sparsity in zip(pools, wanted, strict=True) if sparsity > 0}


def checked(sparsity: Sparsity) -> Sparsity:
    """Return `sparsity` if every fraction in it can be removed.

    Raises:
        InputError: If a fraction is not in [0, 1), or there is no pattern.
    """
    return check_each("sparsity", sparsity, lambda name, value: check_sparsity(value, name))


def settled(sparsity: Sparsity | None, granularity: Granularity) -> Sparsity:
    """Return the sparsity that is asked for, or that the granularity fixes by itself.

    Raises:
        InputError: If neither gives one, they differ, or a fraction is not in [0, 1).
    """
    fixed = granularity.sparsity
    if fixed is None:
        if sparsity is None:
            raise InputError(f"expected a sparsity in [0, 1) for granularity {granularity!r}, got None")
        return checked(sparsity)
    if sparsity is None:
        return fixed
    sparsity = checked(sparsity)
    for value in sparsity.values() if isinstance(sparsity, Mapping) else [sparsity]:
        if value != 0 and not math.isclose(value, fixed, rel_tol=1e-3):
            raise InputError(
                f"expected sparsity {fixed:.4g} for {granularity!r}, which fixes it, got {value}; leave it out, at the "
                "command line with sparsity=null"
            )
    return sparsity


def find_pools(
    module: LightningModule,
    traced: TracedModel | None,
    granularity: Granularity,
    skip: Collection[Skip] = (),
    uncut: Uncut = "skip",
) -> list[Pool] | None:
    """Return what can be pruned in a module; None if it has to be `traced` for that, and is not.

    Raises:
        InputError: If there is nothing, or a layer cannot be cut and is to be refused.
    """
    if isinstance(granularity, Channel) and granularity.dim not in (0, 1):
        raise InputError(f"expected Channel(dim=0) for filters or Channel(dim=1) for inputs, got {granularity!r}")
    coupled = isinstance(granularity, Channel) and not (granularity.dim == 1 and granularity.residual == "independent")
    skipped = skipped_layers(module, skip, coupled)
    if isinstance(granularity, Channel) and coupled:
        if traced is None:
            return None
        pools = channel_pools(traced, granularity)
        reasons: dict[str, str] = {}
    else:
        pools, reasons = weight_pools(module, granularity)
    reasons = {layer: reason for layer, reason in reasons.items() if layer not in skipped}
    for layer, reason in reasons.items():
        if uncut == "refuse":
            raise InputError(f"{layer}: {reason}")
    why = [f"skip={list(skip)} leaves out {', '.join(sorted(skipped))}"] * bool(skipped)
    why += [f"{layer}: {reason}" for layer, reason in list(reasons.items())[:1]]
    left = [pool for pool in pools if not skipped & set(pool.layers)]
    if not left:
        raise InputError(
            f"expected a model with layers that {granularity!r} can prune, found none; "
            f"{'; '.join(why) or 'weights that train are needed'}"
        )
    if reasons:
        first = next(iter(reasons.values()))
        log.warning("%r leaves %s as they are; the first because: %s", granularity, ", ".join(reasons), first)
    return left


def readable(found: Mapping[Pool, float], criterion: Criterion, uncut: Uncut) -> dict[Pool, float]:
    """Return the pools that have what a criterion scores, a batch norm say; the others stay, and the log names them.

    Raises:
        InputError: If there are none, or pools without it are to be refused.
    """
    left: dict[Pool, float] = {}
    problems: list[InputError] = []
    layers: list[str] = []
    for pool, sparsity in found.items():
        try:
            pool.names(criterion.reads)
        except InputError as problem:
            problems.append(problem)
            layers += pool.layers
        else:
            left[pool] = sparsity
    if problems and (uncut == "refuse" or not left):
        raise problems[0]
    if problems:
        log.warning("%s leaves %s as they are; the first because: %s", criterion, ", ".join(layers), problems[0])
    return left


def skipped_layers(module: LightningModule, skip: Collection[Skip], coupled: bool) -> set[str]:
    """Return the names of the layers to skip.

    Args:
        module: The module.
        skip: Which.
        coupled: Whether channels are pruned with all that is coupled with them.
    """
    layers = list(dict.fromkeys(holder(name) for name in layer_weights(module)))
    depthwise = depthwise_layers(module) if "depthwise" in skip and not coupled else set()
    return {*(layers[:1] if "first" in skip else ()), *(layers[-1:] if "last" in skip else ()), *depthwise}


def erdos_renyi_kernel(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """Return the sparsity of each weight, so that all together have `sparsity`; see `choosing.Scope`.

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


def shares(pools: Sequence[Pool], sparsity: Sparsity, scope: Scope) -> list[float]:
    """Return the final sparsity of each pool, as `targets` does or by its size.

    Raises:
        InputError: As `targets`; also if sizes are to tell for anything but one sparsity of units of weights.
    """
    wanted = targets(pools, sparsity)
    if scope != "erdos_renyi_kernel":
        return wanted
    weights = [pool for pool in pools if isinstance(pool, WeightPool)]
    if len(weights) < len(pools) or isinstance(sparsity, Mapping) or weights[0].granularity.sparsity is not None:
        raise InputError(
            "expected scope='layer' or 'global' for channels, fractions by layer, and granularities that fix their "
            "sparsity, got 'erdos_renyi_kernel'"
        )
    return erdos_renyi_kernel([pool.shape for pool in weights], sparsity)


def targets(pools: Sequence[Pool], sparsity: Sparsity) -> list[float]:
    """Return the final sparsity of each pool: the lowest that any of its layers is to have.

    Layers that no pattern matches are to have none, and a group is never pruned further than one of its layers allows.

    Args:
        pools: Pools of units.
        sparsity: A fraction, or fractions by pattern.

    Raises:
        InputError: If a pattern matches no layer that can be pruned.
    """
    if not isinstance(sparsity, Mapping):
        return [sparsity] * len(pools)
    layers = sorted({layer for pool in pools for layer in pool.layers})
    wanted = by_layer("sparsity", sparsity, layers, "a prunable layer that trains")
    found = [min(wanted[layer] for layer in pool.layers) for pool in pools]
    if not any(found) and any(sparsity.values()):
        raise InputError(
            f"expected sparsity to match all layers of at least one coupled group, got {dict(sparsity)}, whose layers "
            "are all coupled with layers that it does not match; match those too, or use residual='independent'"
        )
    return found
