"""The order in which the callbacks of this package work, whatever their order in the trainer's list."""

from collections.abc import Iterable
from enum import IntEnum, auto
from itertools import combinations, count, permutations
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_prune.errors import InputError

_LOOKS = count()


class CallbackOrder(IntEnum):
    """Which callbacks work before which, in each hook."""

    DISTILLATION = auto()
    """It copies the student before anything is done to it."""
    QUANTIZATION = auto()
    """Behind it layers compute with rounded numbers."""
    REGULARIZATION = auto()
    PRUNING = auto()
    SHARING = auto()
    """It ties together what pruning has left."""
    MEASURING = auto()
    """It looks at what the others have left."""
    RESUMING = auto()
    """It notes and restores the random state behind all that draw from it."""


class OrderedCallback(Callback):
    """A callback that works in a declared order among the others, wherever the trainer's list has it."""

    order: ClassVar[CallbackOrder]

    several: ClassVar[bool] = False
    """Whether several of a kind make sense in one trainer."""

    _is_set_up = False

    @property
    def kind(self) -> str:
        """What tells this callback from others of its class, and its state in a checkpoint from theirs."""
        return type(self).__qualname__

    @property
    def state_key(self) -> str:
        """Name of this callback's state in checkpoints: its kind. Before it is set up, no name comes twice.

        Lightning compares names when a trainer is built, and does not know what to do about two that are the same;
        `check_together` does.
        """
        return self.kind if self._is_set_up else f"{self.kind} {next(_LOOKS)}"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put all callbacks into their order; they make sense together from here on."""
        self._is_set_up = True
        if stage == "fit":
            arrange(trainer)

    def objection(self, other: "OrderedCallback") -> str | None:
        """Return why another callback makes no sense beside this one; None if it does."""
        return None

    def report(self, module: nn.Module) -> dict[str, Any]:
        """Return what `summary.json` is to say of a trained model beside its size: numbers, texts, and groups of them.

        Args:
            module: The module as it is after training, or another of the same architecture.
        """
        return {}


def check_together(callbacks: Iterable[Callback]) -> None:
    """Refuse callbacks that make no sense together.

    Raises:
        InputError: If there are any, with the reason.
    """
    own = [callback for callback in callbacks if isinstance(callback, OrderedCallback)]
    for one, other in permutations(own, 2):
        if (reason := one.objection(other)) is not None:
            raise InputError(f"expected {type(one).__name__} without {type(other).__name__} beside it: {reason}")
    for one, other in combinations(own, 2):
        name = type(one).__name__
        if one is other:
            raise InputError(f"expected every callback once, got the same {name} twice; leave one out")
        if one.kind == other.kind and not one.several:
            raise InputError(
                f"expected one {name} of a kind, got two; leave one out, or let one do what both do: options of "
                "layers, such as sparsity, can differ by their names"
            )


def arrange(trainer: Trainer) -> None:
    """Put this package's callbacks into their order, at the places that they occupy together; others stay.

    The hooks of the stage in which this is called go on in the old order, and all later ones come in the new.

    Raises:
        InputError: If callbacks make no sense together.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    check_together(callbacks)
    ordered = [callback for callback in callbacks if isinstance(callback, OrderedCallback)]
    own = iter(sorted(ordered, key=lambda callback: callback.order))
    # A new list, since Lightning is walking through the old one.
    trainer.callbacks = [next(own) if isinstance(callback, OrderedCallback) else callback for callback in callbacks]  # type: ignore[attr-defined]
