"""Lightning callbacks and their bases: thin lifecycles over the functions of the parts; one file a method."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.callbacks.admm_pruning import ADMMPruning
from lightning_prune.callbacks.best_pruned_checkpoint import BestPrunedCheckpoint
from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.callbacks.gal_pruning import GALPruning
from lightning_prune.callbacks.gradual_pruning import GradualPruning
from lightning_prune.callbacks.held_zeros import HeldZeros
from lightning_prune.callbacks.inherited_momentum import InheritedMomentum
from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.callbacks.network_slimming import NetworkSlimming
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.callbacks.quantization_aware_training import QuantizationAwareTraining
from lightning_prune.callbacks.regularization import Regularization
from lightning_prune.callbacks.slim_widths import SlimWidths
from lightning_prune.callbacks.soft_filter_pruning import SoftFilterPruning
from lightning_prune.callbacks.sparsity_monitor import SparsityMonitor
from lightning_prune.callbacks.weight_sharing import WeightSharing

__all__ = [
    "ADMMPruning",
    "BestPrunedCheckpoint",
    "ExactResume",
    "GALPruning",
    "GradualPruning",
    "HeldZeros",
    "InheritedMomentum",
    "KnowledgeDistillation",
    "NetworkSlimming",
    "Pruner",
    "QuantizationAwareTraining",
    "Regularization",
    "SlimWidths",
    "SoftFilterPruning",
    "SparsityMonitor",
    "WeightSharing",
]
