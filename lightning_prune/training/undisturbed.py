"""A look at what a module gives, without a trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_prune.training.random_state import random_state, set_random_state


@contextmanager
def undisturbed(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Let a module run in eval mode and the trainer's precision, without gradients, and put the random state back."""
    state = random_state(pl_module.device)
    modes = [(module, module.training) for module in pl_module.modules()]
    pl_module.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            yield
    finally:
        for module, training in modes:
            module.training = training
        set_random_state(state, pl_module.device)
