"""How long a fit is."""

import math

from lightning.pytorch import Trainer


def total_epochs(trainer: Trainer) -> int | None:
    """Return how many epochs a fit has at most, None if neither epochs nor steps end it.

    Args:
        trainer: Of the fit, whose loaders are there.
    """
    limits = [trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    if trainer.max_steps not in (None, -1):
        batches = trainer.num_training_batches
        if math.isfinite(batches):
            steps = math.ceil(batches / trainer.accumulate_grad_batches)
            limits.append(math.ceil(trainer.max_steps / max(1, steps)))
    return min(limits) if limits else None
