"""Gradients of what a callback trains beside the module."""

from collections.abc import Iterable

from lightning.pytorch import Trainer
from torch import nn


def average_gradients(trainer: Trainer, parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters that belong to no module of the trainer over all processes."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
