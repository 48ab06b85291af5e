"""What pruners share that choose at optimizer steps."""

import math
from abc import abstractmethod
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import Granularity
from lightning_prune.training import LossTerm, Moment, Term, Timeline, add_term, check_moment, in_steps


class TimedPruner(Pruner):
    """Choose from `begin` to `end`, `every` so many steps; after the last choice the masks are final.

    Args:
        granularity: How weights are cut into units.
        example_input: What `forward` takes; see `Pruner`.
        begin: The first choice, in optimizer steps, or as a fraction of the run if it is a float.
        end: The last choice.
        every: From one choice to the next.

    Raises:
        InputError: If a moment is out of range.
    """

    end_name: ClassVar[str] = "end"
    """What the argument is called that says when the last choice is."""

    def __init__(
        self, granularity: Granularity, example_input: ExampleInput | None, begin: Moment, end: Moment, every: Moment
    ) -> None:
        self.end, self.begin = check_moment(end, self.end_name), check_moment(begin, "begin", one_step=True)
        self.every = check_moment(every, "every", one_step=True)
        if every == 0:
            raise InputError("expected every to be at least one optimizer step or a fraction greater than 0, got 0")
        super().__init__(granularity, example_input)

    @abstractmethod
    def _make_choice(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Do what is due after `step` optimizer steps; after those of the last choice, hold the final masks."""

    def _forget(self) -> None:
        super()._forget()
        self._timeline: Timeline | None = None
        self._steps_an_epoch = math.inf
        self._seen = -1
        self._final = False
        self._term: Term | None = None

    @property
    def is_final(self) -> bool:
        """Whether the last choice is made."""
        return self._final

    @property
    def final_epoch(self) -> float | None:
        """Epochs after which the last choice is made; None before training starts."""
        return None if self._timeline is None else self._timeline.end / self._steps_an_epoch

    # The run ----------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out when in the run to do what, and at which step a resumed run goes on."""
        super().on_train_start(trainer, pl_module)
        self._seen = trainer.global_step or -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Choose before the first step if that is when to begin."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._seen < 0:
            self._advance(trainer, pl_module, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Choose if that is due, so that validation and checkpoints see the pruned weights."""
        if trainer.global_step > self._seen:
            self._advance(trainer, pl_module, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the run has ended before the last choice."""
        if not self.is_final and self._timeline is not None:
            rank_zero_warn(
                f"The run ended after {trainer.global_step} optimizer steps, before the last choice of what to prune, "
                f"at step {self._timeline.end}: the model is less sparse than it was to be."
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the optimizers and the module's loss."""
        super().teardown(trainer, pl_module, stage)
        self._leave_loss()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers and the module's loss."""
        super().on_exception(trainer, pl_module, exception)
        self._leave_loss()

    def state_dict(self) -> dict[str, Any]:
        """Return the masks in force, and whether they are final."""
        return {**super().state_dict(), "final": self._final}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._final = state_dict["final"]

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        end, begin = in_steps(self.end, trainer, self.end_name), in_steps(self.begin, trainer, "begin")
        if begin > end:
            raise InputError(f"expected begin not after end, got begin={begin} and end={end} optimizer steps")
        self._timeline = Timeline(begin, end, max(1, in_steps(self.every, trainer, "every")))
        self._steps_an_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches

    def _advance(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Do what is due once `step` optimizer steps are made."""
        assert self._timeline is not None
        before, self._seen = self._seen, step
        if not self._final and self._timeline.choices(step) > self._timeline.choices(before):
            self._final = step >= self._timeline.end
            self._make_choice(trainer, pl_module, step)

    def _enter_loss(self, pl_module: LightningModule, term: LossTerm) -> None:
        """Add a term to the module's loss until the run ends."""
        self._term = add_term(pl_module, term)

    def _leave_loss(self) -> None:
        if self._term is not None:
            self._term.remove()
            self._term = None
