"""From units to masks: what competes, which goes, and what stays in force."""

from lightning_prune.pruning.admm import SparseSet, Split, residual
from lightning_prune.pruning.channel_permutation import permute_channels
from lightning_prune.pruning.channel_pools import channel_pools
from lightning_prune.pruning.counts import (
    apply_masks,
    check_sparsity,
    count,
    least,
    limit_norms,
    momenta,
    nearest,
    prune,
    slice_norms,
)
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.gal.search import OFFICIAL, PAPER, AdversarialSearch
from lightning_prune.pruning.gal.soft_masks import MaskableKind, find_maskable
from lightning_prune.pruning.gathering import Gathering
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.held_masks import HeldMasks
from lightning_prune.pruning.layer_patterns import by_layer, check_each, some
from lightning_prune.pruning.pools import ChannelPool, Pool, Reads, WeightPool, join, weight_pools
from lightning_prune.pruning.prunable_weights import layer_weights, prunable_weights
from lightning_prune.pruning.selection import Scope, choose, choose_mixed, score
from lightning_prune.pruning.targets import Goal, Skip, Sparsity, Uncut, checked, readable, targets
from lightning_prune.pruning.value_sharing import Initialization, SharedWeights, cluster

__all__ = [
    "OFFICIAL",
    "PAPER",
    "AdversarialSearch",
    "ChannelPool",
    "Criterion",
    "Gathering",
    "Goal",
    "Granularity",
    "HeldMasks",
    "Initialization",
    "MaskableKind",
    "Pool",
    "Reads",
    "Scope",
    "SharedWeights",
    "Skip",
    "SparseSet",
    "Sparsity",
    "Split",
    "Uncut",
    "WeightPool",
    "apply_masks",
    "by_layer",
    "channel_pools",
    "check_each",
    "check_sparsity",
    "checked",
    "choose",
    "choose_mixed",
    "cluster",
    "count",
    "find_maskable",
    "join",
    "layer_weights",
    "least",
    "limit_norms",
    "momenta",
    "nearest",
    "permute_channels",
    "prunable_weights",
    "prune",
    "readable",
    "residual",
    "score",
    "slice_norms",
    "some",
    "targets",
    "weight_pools",
]
