"""Pruning callbacks for PyTorch Lightning that end in a really smaller model."""

from importlib.metadata import version

from lightning_prune import torchvision_operators  # noqa: F401  # before anything imports Lightning

# isort: split
from lightning_prune.callbacks import (
    ADMMPruning,
    BestPrunedCheckpoint,
    ExactResume,
    GALPruning,
    GradualPruning,
    KnowledgeDistillation,
    NetworkSlimming,
    QuantizationAwareTraining,
    Regularization,
    SlimWidths,
    SoftFilterPruning,
    SparsityMonitor,
    WeightSharing,
)
from lightning_prune.reporting import profile
from lightning_prune.slimming import load_slim, prunable_groups, save_slim, slim

__version__ = version("lightning-prune")

__all__ = [
    "ADMMPruning",
    "BestPrunedCheckpoint",
    "ExactResume",
    "GALPruning",
    "GradualPruning",
    "KnowledgeDistillation",
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
