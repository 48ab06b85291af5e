"""Pruning callbacks for PyTorch Lightning that end in a really smaller model."""

from importlib.metadata import version

from lightning_prune.callbacks.admm_pruning import ADMMPruning
from lightning_prune.callbacks.best_pruned_checkpoint import BestPrunedCheckpoint
from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.callbacks.gal_pruning import GALPruning
from lightning_prune.callbacks.gradual_pruning import MagnitudePruning
from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.callbacks.network_slimming import NetworkSlimming
from lightning_prune.callbacks.quantization_aware_training import QuantizationAwareTraining
from lightning_prune.callbacks.regularization import Regularization
from lightning_prune.callbacks.slim_widths import SlimWidths
from lightning_prune.callbacks.soft_filter_pruning import SoftFilterPruning
from lightning_prune.callbacks.sparsity_monitor import SparsityMonitor
from lightning_prune.callbacks.weight_sharing import WeightSharing
from lightning_prune.reporting.profiling import profile
from lightning_prune.slimming.prunable_groups import prunable_groups
from lightning_prune.slimming.slim import slim
from lightning_prune.slimming.slim_files import load_slim, save_slim

__version__ = version("lightning-prune")

__all__ = [
    "ADMMPruning",
    "BestPrunedCheckpoint",
    "ExactResume",
    "GALPruning",
    "KnowledgeDistillation",
    "MagnitudePruning",
    "NetworkSlimming",
    "QuantizationAwareTraining",
    "Regularization",
    "SlimWidths",
    "SoftFilterPruning",
    "SparsityMonitor",
    "WeightSharing",
    "__version__",
    "load_slim",
    "profile",
    "prunable_groups",
    "save_slim",
    "slim",
]
