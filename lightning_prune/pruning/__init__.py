"""From units to masks: what competes, which goes, and what stays in force."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.pruning.admm import SparseSet, Split, in_all, residual
from lightning_prune.pruning.channel_permutation import permute_channels
from lightning_prune.pruning.competition import Competition, Schedule
from lightning_prune.pruning.counts import check_sparsity
from lightning_prune.pruning.criteria.criterion import Criterion
from lightning_prune.pruning.finding import Skip, Uncut, weight_prunables
from lightning_prune.pruning.gal.search import AdversarialSearch
from lightning_prune.pruning.gal.soft_masks import MaskableKind, find_maskable
from lightning_prune.pruning.gal.variants import VARIANTS
from lightning_prune.pruning.gathering import Gathering
from lightning_prune.pruning.goal import Goal
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.held_masks import HeldMasks, nonzeros
from lightning_prune.pruning.layer_weights import layer_labels, layer_weights, trained_weights
from lightning_prune.pruning.norm_limits import NormLimits
from lightning_prune.pruning.prunable import Prunable
from lightning_prune.pruning.quota import Quota, Scope, Sparsity
from lightning_prune.pruning.shared_weights import Initialization, SharedWeights, cluster

__all__ = [
    "VARIANTS",
    "AdversarialSearch",
    "Competition",
    "Criterion",
    "Gathering",
    "Goal",
    "Granularity",
    "HeldMasks",
    "Initialization",
    "MaskableKind",
    "NormLimits",
    "Prunable",
    "Quota",
    "Schedule",
    "Scope",
    "SharedWeights",
    "Skip",
    "SparseSet",
    "Sparsity",
    "Split",
    "Uncut",
    "check_sparsity",
    "cluster",
    "find_maskable",
    "in_all",
    "layer_labels",
    "layer_weights",
    "nonzeros",
    "permute_channels",
    "residual",
    "trained_weights",
    "weight_prunables",
]
