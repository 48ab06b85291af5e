"""What a teacher may be: a frozen copy of the student, or a network apart from it, the same in all processes."""

import copy
import types

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.quantization import release


def frozen_copy(student: nn.Module) -> nn.Module:
    """Return a copy of the student that does not train.

    Raises:
        InputError: If it has no weights yet.
    """
    if next(student.parameters(), None) is None:
        raise InputError(
            f"expected a student with weights when the fit is set up, got {type(student).__name__} without; build "
            "it in __init__, or pass a teacher"
        )
    network = copy.deepcopy(student).requires_grad_(False)
    release(network)
    if isinstance(network, LightningModule) and isinstance(vars(network).get("forward"), types.FunctionType):
        del vars(network)["forward"]  # what Lightning has compiled still runs the student
    return network


def refuse_different(trainer: Trainer, fingerprint: str) -> None:
    """Refuse teachers that are not the same in all processes.

    Args:
        trainer: The trainer; all of its processes call this together.
        fingerprint: Hash of the weights of this process's teacher.

    Raises:
        InputError: In every process, if they differ.
    """
    same = fingerprint == trainer.strategy.broadcast(fingerprint)
    if not trainer.strategy.reduce_boolean_decision(same):
        raise InputError("expected the same teacher in all processes, got different weights; load them from a file")


def refuse_shared(network: nn.Module, module: nn.Module) -> None:
    """Refuse a teacher that the optimizer of a module would train.

    Raises:
        InputError: If they have a parameter in common.
    """
    own = {id(parameter) for parameter in module.parameters()}
    for name, parameter in network.named_parameters():
        if id(parameter) in own:
            raise InputError(
                f"expected a teacher apart from the module in training, got one that shares {name} with it; pass "
                "copy.deepcopy(teacher), and keep no teacher in the module"
            )
