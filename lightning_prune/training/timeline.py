"""How long a run is, and when something happens in it."""

import math
from dataclasses import dataclass

from lightning.pytorch import Callback, Trainer

from lightning_prune.arguments import shown
from lightning_prune.errors import InputError
from lightning_prune.training.loop_state import planned_epochs

Moment = int | float
"""A number of optimizer steps if it is whole, a fraction of the run, in [0, 1], if it has a decimal point."""


@dataclass(frozen=True)
class Timeline:
    """Choose after the steps `begin`, `begin + every`, `begin + 2 * every`, ... and after `end`.

    Args:
        begin: Optimizer steps made before the first choice.
        end: Optimizer steps made before the last choice.
        every: Optimizer steps from one choice to the next.
    """

    begin: int
    end: int
    every: int

    def choices(self, step: int) -> int:
        """Return how many choices are due once `step` optimizer steps are made.

        >>> [Timeline(10, 25, 10).choices(step) for step in (9, 10, 19, 20, 24, 25, 99)]
        [0, 1, 1, 2, 2, 3, 3]
        """
        if step < self.begin:
            return 0
        whole = 1 + (min(step, self.end) - self.begin) // self.every
        return whole + (step >= self.end and (self.end - self.begin) % self.every > 0)

    def upcoming(self, step: int) -> int | None:
        """Return the first moment of choice that is not before `step`; None if the last is over."""
        if step > self.end:
            return None
        rounds = max(0, math.ceil((step - self.begin) / self.every))
        return min(self.end, self.begin + rounds * self.every)

    def progress(self, step: int) -> float:
        """Return how much of the way from `begin` to `end` is made after `step`, in [0, 1]."""
        return 1.0 if step >= self.end else max(0.0, (step - self.begin) / (self.end - self.begin))


class PlannedLength(Callback):
    """Let fractions of the run mean those of a shorter run: of one that is resumed to be trained longer than planned.

    What was chosen then, or was about to be, keeps its moment.

    Args:
        max_epochs: Of that run, as its Trainer was given it; -1 for no limit.
        max_steps: The same in optimizer steps.
    """

    def __init__(self, max_epochs: int | None, max_steps: int = -1) -> None:
        self.max_epochs, self.max_steps = max_epochs, max_steps


def in_steps(moment: Moment, trainer: Trainer, name: str) -> int:
    """Return a moment of a fit in optimizer steps; a fraction greater than 0 is at least one step.

    Args:
        moment: The moment.
        trainer: Of the fit, whose loaders are there. In a `fast_dev_run` what lies behind the end is the end.
        name: What the moment is called in messages.

    Raises:
        InputError: If a fraction is given of a run that has no end, or the moment lies behind the end.
    """
    total = _total_steps(trainer) * max(1, len(trainer.optimizers))
    if isinstance(moment, float):
        if math.isinf(total):
            raise InputError(
                f"expected {name} as a whole number of optimizer steps in a run without an end, got {moment}; "
                "set max_epochs or max_steps"
            )
        return max(int(moment > 0), round(moment * total))
    if moment > total and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise InputError(f"expected {name} within the {total:.0f} optimizer steps of this run, got {moment}")
    return int(min(moment, total))


def check_moment(moment: Moment, name: str, *, one_step: bool = False) -> Moment:
    """Return `moment` if it is one.

    Args:
        moment: The moment.
        name: What it is called in messages.
        one_step: Whether a single optimizer step makes sense, as it does for a beginning or an interval. Where it does
            not, a whole 1 is a slip of the pen for the fraction.

    Raises:
        InputError: If it is neither a whole number of at least 0 nor a fraction in [0, 1], or a 1 that makes no sense.
    """
    whole = isinstance(moment, int) and not isinstance(moment, bool) and moment >= 0
    if whole and moment == 1 and not one_step:
        raise InputError(
            f"expected {name}=1.0 for the end of the run, or {name}=2 or more in optimizer steps, got {name}=1, "
            "a single step"
        )
    if whole or (isinstance(moment, float) and 0 <= moment <= 1):
        return moment
    raise InputError(
        f"expected {name} in optimizer steps (a whole number) or as a fraction of the run in [0.0, 1.0], got "
        f"{shown(moment)}"
    )


def total_epochs(trainer: Trainer) -> int | None:
    """Return how many epochs a fit has at most, None if neither epochs nor steps end it.

    Args:
        trainer: Of the fit, whose loaders are there.
    """
    epochs, max_steps = _limits(trainer)
    limits = [] if epochs is None else [epochs]
    steps = _steps_an_epoch(trainer)
    if max_steps is not None and math.isfinite(steps):
        limits.append(math.ceil(max_steps / max(1, steps)))
    return min(limits) if limits else None


def _total_steps(trainer: Trainer) -> float:
    """Return how many steps each optimizer makes in a fit at most."""
    epochs, max_steps = _limits(trainer)
    if (epochs, max_steps) == (_limit(trainer.max_epochs), _limit(trainer.max_steps)):
        return float(trainer.estimated_stepping_batches)
    limits = [math.inf] if epochs is None else [_steps_an_epoch(trainer) * max(1, epochs)]
    return min([*limits, *([] if max_steps is None else [max_steps])])


def _steps_an_epoch(trainer: Trainer) -> float:
    batches = trainer.num_training_batches / trainer.accumulate_grad_batches
    return math.ceil(batches) if math.isfinite(batches) else math.inf


def _limits(trainer: Trainer) -> tuple[int | None, int | None]:
    """Return after how many epochs and optimizer steps a fit ends, None each for no limit."""
    planned = next((one for one in trainer.callbacks if isinstance(one, PlannedLength)), None)  # type: ignore[attr-defined]
    if planned is not None:
        return _limit(planned.max_epochs), _limit(planned.max_steps)
    return _limit(planned_epochs(trainer)), _limit(trainer.max_steps)


def _limit(number: int | None) -> int | None:
    return None if number == -1 else number
