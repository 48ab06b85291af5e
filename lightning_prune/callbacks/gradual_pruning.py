"""Pruning by any criterion, granularity, schedule and scope: gradual, one-shot or iterative, soft, rewound."""

from collections.abc import Collection
from typing import Any, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.arguments import flag, function, instance, one_of, whole_number
from lightning_prune.callbacks.timed_pruner import TimedPruner
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import (
    Competition,
    Criterion,
    Gathering,
    Goal,
    Granularity,
    HeldMasks,
    Schedule,
    Scope,
    Skip,
    Sparsity,
    Uncut,
)
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.schedules.cubic import Cubic
from lightning_prune.slimming import TracedModel
from lightning_prune.training import Moment, Rewind, check_moment, in_steps, rewind, snapshot


class GradualPruning(TimedPruner):
    """Remove the least important units step by step, and hold them at zero while the others train.

    With its defaults this is gradual magnitude pruning. What a unit is, what makes it important, how many go when, and
    against which others it competes are four arguments that combine freely.

    Args:
        sparsity: Fraction of the units that go in the end, in [0, 1), or such fractions by layer name pattern
            (`{"layer1.*": 0.3, "*": 0.9}`; the first that matches counts, unmatched layers keep all). None for what the
            granularity fixes by itself, as `NM()` and `Pattern()` do.
        granularity: How weights are cut into units; `Channel(round_to=8)` for channels in widths that hardware likes.
        criterion: Scores of units.
        schedule: Sparsity on the way from `begin` to `end`; `Cubic()` is gradual, or `OneShot()`, `Iterative()`.
        scope: Where units compete; see `lightning_prune.pruning.quota.Scope`.
        floor: Fraction of its units that every layer keeps in global scope, in [0, 1), at least one.
        begin: When units first go, in optimizer steps, or as a fraction of the run if it is a float.
        end: When the last go; from then on the masks are final. In steps or as a fraction, as `begin`.
        every: How long it takes from one choice to the next, in steps or as a fraction.
        skip: Layers left as they are; see `lightning_prune.pruning.finding.Skip`.
        uncut: Treatment of layers that the granularity cannot cut: `"skip"`, logged with the reason, or `"refuse"`.
        soft: Let what was zeroed grow back, and choose afresh among all units, until `end`.
        gather: Optimizer steps before each choice over which a criterion looks at gradients or activations.
        rewind: What goes back to an earlier step after each choice; None for nothing. See
            `lightning_prune.training.rewinding.Rewind`.
        rewind_to: That step, in optimizer steps or as a fraction, not after `begin`.
        example_input: What `forward` takes, a tensor or a tuple; by default the module's `example_input_array`, or else
            the first training batch. Only channels need it.

    Raises:
        InputError: If an argument is out of range, or does not fit another; when training starts, also if it does not
            fit the model or the length of the run.

    Reference:
        Zhu and Gupta, To prune, or not to prune, 2017, arXiv:1710.01878; Han et al., Learning both Weights and
        Connections, 2015, arXiv:1506.02626 (one-shot, iterative).
    """

    def __init__(
        self,
        sparsity: Sparsity | None = None,
        *,
        granularity: Granularity | None = None,
        criterion: Criterion | None = None,
        schedule: Schedule | None = None,
        scope: Scope = "layer",
        floor: float = 0.01,
        begin: Moment = 0.1,
        end: Moment = 0.5,
        every: Moment = 0.005,
        skip: Collection[Skip] = ("first", "depthwise"),
        uncut: Uncut = "skip",
        soft: bool = False,
        gather: int = 30,
        rewind: Rewind | None = None,
        rewind_to: Moment = 0,
        example_input: ExampleInput | None = None,
    ) -> None:
        granularity = Element() if granularity is None else granularity
        self.goal = Goal(granularity, sparsity, scope, floor, skip, uncut)
        self.criterion: Criterion = Magnitude() if criterion is None else criterion
        instance("criterion", Criterion, self.criterion, Magnitude)
        self.schedule = Cubic() if schedule is None else schedule
        function("schedule", self.schedule, "progress, final", Cubic)
        if len(self.criterion.stages) > 1 and scope == "global":
            name = type(self.criterion).__name__
            raise InputError(
                f"expected scope='layer' for {name}, whose second criterion scores what is left of a layer"
            )
        self.rewind_to = check_moment(rewind_to, "rewind_to", one_step=True)
        self.soft = flag("soft", soft)
        self.gather = whole_number("gather", gather)
        self.rewind = None if rewind is None else one_of("rewind", rewind, get_args(Rewind))
        super().__init__(granularity, example_input, begin, end, every)

    def _forget(self) -> None:
        super()._forget()
        self._competition: Competition | None = None
        self._rewind_step = 0
        self._gathering: Gathering | None = None
        self._gathered: dict[str, Any] | None = None
        self._origin: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        """What tells this callback from others of its class: what it prunes."""
        return self._generate_state_key(granularity=self.granularity, criterion=self.criterion, rewind=self.rewind)

    # The run ----------------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Prune before the first step if that is when to begin; look at activations if the criterion does."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._gathering is not None and self._needs("activations") and self._gathers(trainer.global_step + 1):
            self._gathering.look_at_activations(pl_module, batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradients of a whole step, unscaled and averaged over processes, if the criterion does."""
        if self._gathering is not None and self._needs("first_order") and self._gathers(trainer.global_step + 1):
            self._gathering.look_at_gradients(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks in force, and what has been gathered and kept for choices to come."""
        gathered = self._gathered if self._gathering is None else self._gathering.state_dict()
        return {**super().state_dict(), "gathered": gathered, "origin": self._origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._gathered, self._origin = state_dict["gathered"], state_dict["origin"]

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super()._plan(trainer, pl_module)
        assert self._timeline is not None
        begin = self._timeline.begin
        self._rewind_step = in_steps(self.rewind_to, trainer, "rewind_to")
        if self.rewind and self._rewind_step > begin:
            raise InputError(f"expected rewind_to not after begin={begin} optimizer steps, got {self._rewind_step}")
        if not self._needs("weights") and begin == 0:
            raise InputError(
                f"expected begin of at least 1 optimizer step for {type(self.criterion).__name__}, which looks at "
                f"{self.criterion.needs.replace('_', '-')} terms of training steps first, got 0"
            )
        if self._needs("second_order"):
            self._enter_loss(pl_module, lambda loss: self._look_at_loss(trainer, pl_module, loss))

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        found = self.goal.find(pl_module, traced)
        if found is None:
            return False
        self._competition = found.readable(self.criterion, self.goal.uncut)
        self._competition.check()
        self._competition.check_schedule(self.schedule)
        if not self._needs("weights"):
            self._gathering = self._gather_of(self._competition, pl_module, traced)
        return True

    def _gather_of(self, competition: Competition, pl_module: LightningModule, traced: TracedModel | None) -> Gathering:
        """Return where scores are gathered, with what a checkpoint has of them."""
        if self._needs("activations") and any(one.group is None for one in competition.prunables):
            raise InputError(
                f"expected granularity Channel() for {type(self.criterion).__name__}, which scores channels by their "
                f"activations, got {self.granularity!r}; at the command line granularity=output_channel"
            )
        gathering = Gathering(self.criterion, competition.prunables)
        if self._gathered is not None:
            gathering.load_state_dict(self._gathered)
            self._gathered = None
        if self._needs("activations") and traced is not None:
            gathering.check_activations(pl_module, traced.arguments)
        return gathering

    def _needs(self, what: str) -> bool:
        return self.criterion.needs == what

    def _gathers(self, step: int) -> bool:
        """Return whether the criterion looks at the optimizer step that is made as the `step`-th."""
        assert self._timeline is not None
        upcoming = self._timeline.upcoming(step)
        if upcoming is None:
            return False
        return self.criterion.memory == 1 or step > upcoming - self.gather

    def _look_at_loss(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        step = trainer.global_step + 1
        if self._gathering is not None and self._gathers(step):
            self._gathering.look_at_loss(pl_module, loss, seed=step)

    def _after_step(self, pl_module: LightningModule, optimizer: Optimizer) -> None:
        super()._after_step(pl_module, optimizer)
        if self._gathering is not None:
            self._gathering.confirm()

    def _advance(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        if self.rewind and self._seen < self._rewind_step <= step:
            self._origin = snapshot(trainer, pl_module)
        super()._advance(trainer, pl_module, step)

    def _make_choice(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        assert self._timeline is not None
        masks = self._choose(trainer, pl_module, self._timeline.progress(step))
        if self.rewind and self._origin is not None:
            rewind(trainer, pl_module, self._origin, self.rewind)
        if self.soft and not self.is_final:
            HeldMasks(pl_module, masks).enforce()
        else:
            self._hold(trainer, pl_module, masks)
        if self.is_final:
            self._check_rate(trainer)
            if masks and all(bool(mask.all()) for mask in masks.values()):
                rank_zero_warn(f"Sparsity {self.goal.quota.sparsity} removes no unit of any layer: nothing is pruned.")

    @torch.no_grad()
    def _choose(self, trainer: Trainer, pl_module: LightningModule, progress: float) -> dict[str, Tensor]:
        """Return masks that remove what is least important now, and what is gone already."""
        assert self._competition is not None
        competition = self._competition.at(self.schedule, progress)
        held = None if self._held is None else self._held.factors
        if self._gathering is not None:
            return competition.choose_lowest(self._gathering.take(trainer), held)
        weights = {name: weight.detach() for name, weight in pl_module.named_parameters()}
        return competition.choose(self.criterion, weights, held)

    def _check_rate(self, trainer: Trainer) -> None:
        """Warn if the learning rate has fallen too far for the model to recover from the last choice."""
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                if group["lr"] < 0.1 * group.get("initial_lr", 0):
                    rank_zero_warn(
                        f"The last units go at learning rate {group['lr']:.2g}, under a tenth of the initial "
                        f"{group['initial_lr']:.2g}: what is left may not recover. Let the pruning end earlier."
                    )
                    return
