"""Soft filter pruning and its relatives: SFP, ASFP, FPGM."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lightning_prune.arguments import flag, function, instance, number, whole_number
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import Competition, Criterion, Goal, HeldMasks, NormLimits, Schedule, Sparsity
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.schedules.constant import Constant
from lightning_prune.slimming import Residual, TracedModel
from lightning_prune.training import total_epochs


class SoftFilterPruning(Pruner):
    """Zero the least important filters after every epoch, let them grow back, and fix them at last.

    During the soft phase every parameter trains; at the end of each epoch, before its validation and its checkpoint,
    the filters with the lowest scores are set to zero, chosen afresh each time. From `hard_from` on the choice is
    fixed: the filters, and the biases and batch-norm scales and shifts that belong to their channels, stay at zero
    while the others train, so that `slim` can remove them without changing any output. Frozen layers, and layers
    coupled with them, stay as they are.

    Args:
        sparsity: Fraction of the filters that each layer loses, in [0, 1), or such fractions by layer name pattern
            (`{"layer1.*": 0.3, "*": 0.5}`; the first that matches counts, unmatched layers keep all). Counts are
            rounded down, as in the paper; coupled layers take the lowest of their fractions.
        criterion: Scores of filters; `Magnitude()` is SFP, `GeometricMedian()` is FPGM, `Mix()` their mix.
        schedule: Sparsity on the way through the soft phase; `Constant()` is SFP, `Asymptotic()` is ASFP.
        residual: Treatment of residual streams: `"coupled"`, `"inner"` or `"independent"` (the paper's); see
            `lightning_prune.slimming.channels.groups.Residual`.
        round_to: What the width of a layer that loses filters is a multiple of, 8 or 16 say, so that the slim model is
            fast; see `lightning_prune.pruning.granularities.channel.Channel`.
        min_width: Filters that each layer keeps at least.
        every_n_epochs: Epochs from one reset to the next.
        prune_before_training: Also reset before the first epoch, as the authors' code does; for pretrained models.
            From random weights it freezes filters behind a ReLU, which then never get a gradient.
        hard_from: Fraction of the run after which the choice is fixed, in [0, 1); at least the last epoch is hard.
            None is the paper's behaviour: the last reset is the last thing that happens, which costs accuracy.
        max_regrowth: Largest norm to which a filter that was reset may grow back, as a multiple of the one that it had;
            None for the paper's behaviour, any norm. Batch norm multiplies the gradient of a zero filter by up to
            `1 / sqrt(eps)` = 316, so that without a limit it comes back as the largest of its layer after a few steps
            and the next reset takes other filters, epoch after epoch.
        keep_dense: Keep a copy of the weights just before the last reset in `dense_state`, and in checkpoints.
        example_input: What `forward` takes, a tensor or a tuple; by default the module's `example_input_array`, or else
            the first training batch.

    Raises:
        InputError: If an argument is out of range; when training starts, also if the model has nothing to prune, a
            pattern matches nothing, the run has no end, or the strategy shards the weights.

    Reference:
        He et al., Soft Filter Pruning, 2018, arXiv:1808.06866, algorithm 1; ASFP, 2019, arXiv:1808.07471; Filter
        Pruning via Geometric Median, 2019, arXiv:1811.00250.
    """

    def __init__(
        self,
        sparsity: Sparsity | None = None,
        *,
        criterion: Criterion | None = None,
        schedule: Schedule | None = None,
        residual: Residual = "coupled",
        round_to: int = 1,
        min_width: int = 1,
        every_n_epochs: int = 1,
        prune_before_training: bool = False,
        hard_from: float | None = 0.9,
        max_regrowth: float | None = 1.0,
        keep_dense: bool = False,
        example_input: ExampleInput | None = None,
    ) -> None:
        channels = Channel(residual=residual, round_to=round_to, min_width=min_width)
        self.goal = Goal(channels, sparsity, uncut="refuse", rounding="floor")
        self.criterion: Criterion = Magnitude() if criterion is None else criterion
        instance("criterion", Criterion, self.criterion, Magnitude)
        if self.criterion.needs != "weights":
            raise InputError(
                f"expected a criterion that looks at weights alone, got {criterion!r}; use GradualPruning with "
                "granularity Channel(), at the command line strategy=gmp granularity=output_channel"
            )
        self.schedule = Constant() if schedule is None else schedule
        function("schedule", self.schedule, "progress, final", Constant)
        self.every_n_epochs = whole_number("every_n_epochs", every_n_epochs)
        self.prune_before_training = flag("prune_before_training", prune_before_training)
        self.hard_from = None if hard_from is None else number("hard_from", hard_from, "[0, 1)")
        self.max_regrowth = None if max_regrowth is None else number("max_regrowth", max_regrowth, "(0, inf]")
        self.keep_dense = flag("keep_dense", keep_dense)
        super().__init__(channels, example_input)

    def _forget(self) -> None:
        super()._forget()
        self._competition: Competition | None = None
        self._limits = NormLimits()
        self._epochs: int | None = None
        self.hard_epoch: int | None = None
        """Number of epochs after which the choice is fixed, known when training starts."""

    @property
    def kind(self) -> str:
        """What tells this callback from others of its class: what it prunes."""
        return self._generate_state_key(criterion=self.criterion, schedule=self.schedule)

    @property
    def is_final(self) -> bool:
        """Whether the choice of filters is fixed."""
        return self._held is not None

    @property
    def final_epoch(self) -> float | None:
        """Epochs after which the choice is fixed; None before training starts and without a hard phase."""
        return self.hard_epoch

    # The run ----------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, find what can be pruned, and hook into the optimizers."""
        super().on_fit_start(trainer, pl_module)
        self._limits.move_to(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Make up for what had to wait for the first batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if trainer.global_step == 0 and batch_idx == 0 and not self.is_final:
            if self.hard_epoch == 0:
                self._fix(trainer, pl_module)
            elif self.prune_before_training:
                self._reset(pl_module, self._progress(0))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Reset after the last batch of an epoch, so that validation and checkpoint see the reset weights."""
        if not trainer.is_last_batch or self.is_final:
            return
        epochs = trainer.current_epoch + 1
        if epochs in (self.hard_epoch, self._epochs):
            self._fix(trainer, pl_module)
        elif epochs % self.every_n_epochs == 0:
            self._reset(pl_module, self._progress(epochs))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the choice if the run has ended before its hard phase."""
        if not self.is_final and self._found:
            rank_zero_warn(
                "The run ended in its soft phase: the filters were removed after the last validation and checkpoint."
            )
            self._fix(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fix the choice if the run had ended before it was resumed: then no training starts, and none ends."""
        if not self.is_final and self._found and trainer.global_step > 0:
            self._fix(trainer, pl_module)
        super().on_fit_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the fixed masks and the dense weights, if there are any yet, and the limits of filters' norms."""
        return {**super().state_dict(), "dense_state": self.dense_state, "limits": self._limits.limits}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self.dense_state, self._limits = state_dict["dense_state"], NormLimits(state_dict["limits"])

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how many epochs the run has and with which one the hard phase begins."""
        self._epochs = total_epochs(trainer)
        if self.hard_from is None:
            rank_zero_warn(
                "hard_from=None resets filters after the last epoch without training on: expect to lose accuracy."
            )
            return
        if self._epochs is None:
            raise InputError(
                f"expected a run of known length in epochs, got max_epochs={trainer.max_epochs} and "
                f"max_steps={trainer.max_steps}; set max_epochs, or hard_from=None"
            )
        self.hard_epoch = min(math.floor(self.hard_from * self._epochs + 1e-9), self._epochs - 1)
        if self.hard_epoch == 0 and self.hard_from > 0:
            rank_zero_warn(f"A run of {self._epochs} epoch has no soft phase: filters are chosen before training.")

    def _progress(self, epochs: int) -> float:
        """Return how much of the soft phase is over after `epochs`, in [0, 1]."""
        end = self.hard_epoch or self._epochs
        return 1.0 if end is None else min(1.0, epochs / end)

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        found = self.goal.find(pl_module, traced)
        self._competition = None if found is None else found.readable(self.criterion, self.goal.uncut)
        return found is not None

    @torch.no_grad()
    def _choose(self, pl_module: LightningModule, progress: float, owned: bool) -> dict[str, Tensor]:
        """Return masks over the filters, and over what else they own, chosen by the filters as they are now."""
        assert self._competition is not None
        weights = {name: weight.detach() for name, weight in pl_module.named_parameters()}
        return self._competition.at(self.schedule, progress).choose(self.criterion, weights, owned=owned)

    def _reset(self, pl_module: LightningModule, progress: float) -> None:
        """Zero the filters with the lowest scores; nothing holds them there but a limit of how far they grow back."""
        chosen = HeldMasks(pl_module, self._choose(pl_module, progress, owned=False))
        if self.max_regrowth is not None:
            for name, mask in chosen.factors.items():
                self._limits.note(name, pl_module.get_parameter(name).data, mask, self.max_regrowth)
        chosen.enforce()

    def _fix(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose for the last time and hold everything that belongs to the chosen filters at zero from now on."""
        if self.keep_dense:
            self.dense_state = {name: tensor.cpu().clone() for name, tensor in pl_module.state_dict().items()}
        self._limits = NormLimits()
        self._hold(trainer, pl_module, self._choose(pl_module, 1.0, owned=True))

    def _after_step(self, pl_module: LightningModule, optimizer: Optimizer) -> None:
        super()._after_step(pl_module, optimizer)
        self._limits.enforce(pl_module)
