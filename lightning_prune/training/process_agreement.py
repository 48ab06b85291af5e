"""What keeps all processes alike: a check of their masks, and means of what a callback trains beside the module."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn


def check_agreement(trainer: Trainer, masks: Mapping[str, Tensor]) -> None:
    """Compare masks with those of all other processes, by a hash of each.

    Args:
        trainer: The trainer, whose strategy may run several processes.
        masks: bool masks by parameter name, each of the same shape as its parameter.

    Raises:
        RuntimeError: In every process, if the masks are not the same in all.
    """
    if trainer.world_size == 1:
        return
    own = torch.tensor([_fingerprint(mask) for mask in masks.values()], device=trainer.strategy.root_device)
    every = trainer.strategy.all_gather(own).reshape(trainer.world_size, -1)
    differs = (every != every[0]).any(dim=0)
    if differs.any():
        names = [name for name, other in zip(masks, differs.tolist(), strict=True) if other]
        raise RuntimeError(
            f"expected the same masks in all {trainer.world_size} processes, got different ones of {names[0]}"
            f" and {len(names) - 1} more; their weights, gradients or random numbers have drifted apart"
        )


def _fingerprint(mask: Tensor) -> int:
    digest = hashlib.blake2b(mask.contiguous().cpu().numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def average_gradients(trainer: Trainer, parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters that belong to no module of the trainer over all processes."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
