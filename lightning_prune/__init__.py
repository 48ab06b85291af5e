"""Pruning callbacks for PyTorch Lightning that end in a really smaller model."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_ROOMS = ("callbacks", "reporting", "slimming")


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: help at the command line does not wait for torch."""
    if name in __all__:
        for room in _ROOMS:
            face = import_module(f"{__name__}.{room}")
            if name in face.__all__:
                return getattr(face, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
