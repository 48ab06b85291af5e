"""Learning rate schedulers that need more than an optimizer: the length of the run in steps, or a metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from lightning_prune.arguments import flag, instance, number, one_of, whole_number
from lightning_prune.errors import InputError


@runtime_checkable
class LRSchedule(Protocol):
    """Builds a scheduler for a run and says when Lightning steps it."""

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> LRSchedulerConfigType:
        """Return a scheduler of an optimizer as Lightning takes it from `configure_optimizers`."""


@dataclass(frozen=True)
class PerStep:
    """Step any scheduler of torch after each optimizer step instead of after each epoch.

    Args:
        scheduler: Maps the optimizer, and under the name `length` the number of optimizer steps of the run, to a
            scheduler.
        length: What the scheduler calls that number, such as `T_max` or `total_iters`; None if it takes none.
    """

    scheduler: Callable[..., LRScheduler]
    length: str | None = None

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> LRSchedulerConfigType:
        """Return the scheduler for the steps of a run.

        Raises:
            InputError: If it has to know their number and the run has no end.
        """
        steps = {} if self.length is None else {self.length: _count_steps(trainer)}
        return {"scheduler": self.scheduler(optimizer, **steps), "interval": "step"}


@dataclass(frozen=True)
class OneCycle:
    """Raise the learning rate to that of the optimizer and let it fall far below, once in a run, step by step.

    Args:
        pct_start: Fraction of the optimizer steps in which it rises.
        anneal_strategy: How it rises and falls.
        cycle_momentum: Whether momentum falls and rises the other way round.
        base_momentum: The lowest momentum.
        max_momentum: The highest.
        div_factor: The peak over the first learning rate.
        final_div_factor: The first learning rate over the last.

    Raises:
        InputError: If an argument is out of range.

    Reference:
        Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018,
        arXiv 1708.07120.
    """

    pct_start: float = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: float = 0.85
    max_momentum: float = 0.95
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        number("pct_start", self.pct_start, "[0, 1]")
        one_of("anneal_strategy", self.anneal_strategy, ("cos", "linear"))
        flag("cycle_momentum", self.cycle_momentum)
        number("base_momentum", self.base_momentum, "[0, 1)")
        number("max_momentum", self.max_momentum, "[0, 1)")
        number("div_factor", self.div_factor, "(0, inf)")
        number("final_div_factor", self.final_div_factor, "(0, inf)")

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> LRSchedulerConfigType:
        """Return `OneCycleLR` over the steps of a run, its peak at the learning rate of each parameter group.

        Raises:
            InputError: If the run has no end.
        """
        scheduler = OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=_count_steps(trainer),
            pct_start=self.pct_start,
            anneal_strategy=self.anneal_strategy,
            cycle_momentum=self.cycle_momentum,
            base_momentum=self.base_momentum,
            max_momentum=self.max_momentum,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
        )
        return {"scheduler": scheduler, "interval": "step"}


@dataclass(frozen=True)
class Plateau:
    """Lower the learning rate when a logged metric has stopped to get better.

    Args:
        monitor: Name of the metric, as it is logged.
        mode: `"min"` if less is better, `"max"` if more is.
        factor: What the learning rate is multiplied by.
        patience: Epochs without a better value that are allowed before.
        threshold: By which fraction a value must be better to count.
        cooldown: Epochs after a fall in which none are counted.
        min_lr: The lowest learning rate.

    Raises:
        InputError: If an argument is out of range.
    """

    monitor: str
    mode: Literal["min", "max"] = "min"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0

    def __post_init__(self) -> None:
        instance("monitor", str, self.monitor)
        one_of("mode", self.mode, ("min", "max"))
        number("factor", self.factor, "(0, 1)")
        whole_number("patience", self.patience, least=0)
        number("threshold", self.threshold, "[0, inf)")
        whole_number("cooldown", self.cooldown, least=0)
        number("min_lr", self.min_lr, "[0, inf)")

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> LRSchedulerConfigType:
        """Return `ReduceLROnPlateau`, stepped after each epoch with the metric's last value."""
        scheduler = ReduceLROnPlateau(
            optimizer,
            mode=self.mode,
            factor=self.factor,
            patience=self.patience,
            threshold=self.threshold,
            cooldown=self.cooldown,
            min_lr=self.min_lr,
        )
        return {"scheduler": scheduler, "monitor": self.monitor}


def _count_steps(trainer: Trainer) -> int:
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise InputError(
            "lr_scheduler: expected a run whose optimizer steps can be counted, got one without an end; set "
            "trainer.max_epochs or trainer.max_steps"
        )
    return int(steps)
