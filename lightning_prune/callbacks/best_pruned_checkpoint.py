"""The best checkpoint among those that can be slimmed."""

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_prune.callbacks.soft_filter_pruning import SoftFilterPruning


class BestPrunedCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint by a monitored metric, once every pruner's choice is final.

    A model in its soft phase may score higher, but cannot be slimmed without changing its outputs. Arguments are those
    of Lightning's `ModelCheckpoint`; without a pruner it does the same.
    """

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether to save now."""
        pruners = [callback for callback in trainer.callbacks if isinstance(callback, SoftFilterPruning)]  # type: ignore[attr-defined]
        return all(pruner.is_final for pruner in pruners) and super().check_monitor_top_k(trainer, current)
