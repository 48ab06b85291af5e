"""The best checkpoint among those that can be slimmed."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_prune.callbacks.pruner import pruners


class BestPrunedCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint by a monitored metric, once every pruner's choice is final.

    A model in its soft phase may score higher, but cannot be slimmed without changing its outputs. Arguments are those
    of Lightning's `ModelCheckpoint`; without a pruner it does the same. A run whose folder was moved still knows its
    best checkpoint when it is resumed.
    """

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether to save now, given the monitored value, `()`."""
        return all(pruner.is_final for pruner in pruners(trainer)) and super().check_monitor_top_k(trainer, current)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint, looking for its files where this run's are."""

        def here(path: str) -> str:
            return str(Path(self.dirpath or "") / Path(path).name) if path else path

        paths = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})
