"""Knowledge distillation: the network in training also learns what a frozen one makes of the same inputs."""

import os
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.arguments import flag, function, instance, items, number
from lightning_prune.distillation import FeatureMatching, LogitCache, LogitLoss, Ramp, Teacher, labels, loss_name
from lightning_prune.distillation.losses.hinton import Hinton
from lightning_prune.distillation.losses.match import Match
from lightning_prune.errors import InputError
from lightning_prune.training import (
    CallbackOrder,
    EpochMeans,
    Moment,
    OrderedCallback,
    Term,
    add_term,
    check_moment,
    in_steps,
)


class KnowledgeDistillation(OrderedCallback):
    """Add to every training loss how far the module's logits, and features, are from those of a frozen teacher.

    With a factor `r` that follows `warm_up` and `decay`, the loss becomes

        (1 - r) * own + r * (task_weight * own + weight * loss + sum of match.weight * match.loss).

    The teacher is given what the student is given in the training step, mixed or cropped as it is there, and runs in
    eval mode in the trainer's precision. It is in no checkpoint; a run is only resumed with the same one. At the end of
    every epoch `distillation/<loss>` and `distillation/<loss>[<layer>]` are logged, means over the epoch before they
    are weighted, and `distillation/ramp`, the last `r`.

    Args:
        teacher: Any module that takes what the student takes; None for a frozen copy of the student as it is when the
            fit is set up, before a checkpoint is loaded.
        checkpoint: File or run folder whose weights the teacher gets; see `load_weights`.
        loss: Of the logits, one of `lightning_prune.distillation.losses`; None for none. Labels, where it needs them,
            are the second entry of a batch, or what it calls label, labels, target, targets or y.
        features: Which layers are to be alike, and how.
        weight: Factor of `loss`, at least 0.
        task_weight: Factor of the step's own loss, at least 0.
        warm_up: When `r`, which begins at 0, has grown to 1, in optimizer steps, or as a fraction of the run if it is a
            float; 0 if it begins at 1.
        decay: When `r` begins to fall, to 0 at the end of the run; None if it stays.
        student: Name of the part of the module that is taught, such as `"net"`; it gives logits and is called once in
            a training step. `""` is the module itself. Layers are named from there.
        cache: Look the teacher's logits up instead of computing them in every epoch, where the data module shows its
            images in views that can be counted, and the training step gives them to the student as they are.

    Raises:
        InputError: If an argument is out of range; before training, also if the teacher or a layer does not fit, the
            module optimizes manually, or the strategy shards the weights; in a step, if the student is not called
            once, or labels are missing.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531; Beyer et al., Knowledge
        distillation: A good teacher is patient and consistent, 2022, arXiv:2106.05237, for the same input on both
        sides. Most code that compares methods gives `Hinton()` a weight of 0.9 and leaves the own loss 0.1, for long
        runs with good teachers; with the own loss at 1 a teacher that knows little does no harm either.
    """

    order = CallbackOrder.DISTILLATION

    def __init__(
        self,
        teacher: nn.Module | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        loss: LogitLoss | None = Hinton(),  # noqa: B008  # frozen
        features: Sequence[Match] = (),
        weight: float = 1.0,
        task_weight: float = 1.0,
        warm_up: Moment = 0,
        decay: Moment | None = None,
        student: str = "",
        cache: bool = False,
    ) -> None:
        self.loss = None if loss is None else function("loss", loss, "student, teacher, labels", Hinton)
        for match in items("features", features, "Match(...)"):
            instance("an entry of features", Match, match)
        self.features = tuple(match for match in features if match.weight)
        self.weight = float(number("weight", weight, "[0, inf)")) if loss is not None else 0.0
        self.task_weight = float(number("task_weight", task_weight, "[0, inf)"))
        self.warm_up = check_moment(warm_up, "warm_up")
        self.decay = None if decay is None else check_moment(decay, "decay")
        self.cache = flag("cache", cache)
        self._forget()
        layers = [(match.student, match.teacher) for match in self.features]
        self._teacher = Teacher(teacher, checkpoint, student, layers)

    def _forget(self) -> None:
        self._term: Term | None = None
        self._ramp = Ramp(0, None, 0)
        self._factor = 0.0
        self._means = EpochMeans()
        self._batch: Any = None
        self._trainer: Trainer | None = None
        self._matching = FeatureMatching(self.features)
        self._cache: LogitCache | None = None
        self._cached_epoch = -1

    @property
    def _teaches(self) -> bool:
        return bool(self.weight or self.features)

    # The run ----------------------------------------------------------------------------------------------------------

    def check_layers(self, pl_module: nn.Module) -> None:
        """Refuse names of layers that the module or the teacher do not have; before training this is done anyway.

        Raises:
            InputError: If there are any.
        """
        self._teacher.check_layers(pl_module)

    def objection(self, other: OrderedCallback) -> str | None:
        """Return why another callback makes no sense beside this one; None if it does."""
        return "each would weigh the step's own loss" if isinstance(other, KnowledgeDistillation) else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take in the teacher, and its place before the pruners."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._forget()
            if self._teaches:
                self._teacher.setup(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the module's loss, and refuse a teacher that does not fit."""
        self._trainer = trainer
        if self._teaches or self.task_weight != 1:
            self._term = add_term(pl_module, self._added)
        if self._teaches:
            self._teacher.start(trainer, pl_module)
            example = self._teacher.example_features
            if example and len(example[0][0]) > 1:  # a single sample has no batch statistics
                self._matching.losses(trainer, example)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long the run is, and whether logits can be looked up."""
        # Not before, as in Pruner: Lightning takes loaders that are there before a checkpoint's state for new ones.
        decay = None if self.decay is None else in_steps(self.decay, trainer, "decay")
        end = 0 if decay is None else in_steps(1.0, trainer, "decay")
        self._ramp = Ramp(in_steps(self.warm_up, trainer, "warm_up") if self.warm_up else 0, decay, end)
        if self.cache and self._teaches:
            reason = "features are matched" if self.features else LogitCache.reason_against(trainer)
            if reason is None:
                self._cache = LogitCache(trainer, self._teacher.network)
            else:
                rank_zero_warn(f"KnowledgeDistillation computes the teacher's logits in spite of cache=True: {reason}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to look at what the student is given."""
        self._batch, self._factor = batch, self._ramp(trainer.global_step)
        if self._factor and self._teaches:
            self._teacher.begin_step(trainer, batch if self._cache is None else None)
            # Here and not at the start of the epoch, which a run resumed within it does not come by.
            if self._cache is not None and self._cached_epoch != trainer.current_epoch:
                self._cached_epoch = trainer.current_epoch
                self._cache.start_epoch(trainer, self._cached_epoch)

    def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Forget the adapters' gradients with the module's."""
        self._matching.zero_grad()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let go of the batch."""
        self._batch = None
        self._teacher.end_step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's means."""
        if self._teaches:
            last = self._ramp(max(0, trainer.global_step - 1))
            pl_module.log_dict({**self._means.take(), "distillation/ramp": last}, sync_dist=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module, and give the teacher back."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module, and give the teacher back."""
        self._leave()

    def state_dict(self) -> dict[str, Any]:
        """Return a hash of the teacher, the adapters, and the sums that are logged at the end of the epoch."""
        if not self._teaches:
            return {}
        adapters, means = self._matching.state_dict(), self._means.state_dict()
        return {"teacher": self._teacher.state_dict(), "adapters": adapters, "means": means}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        if self._teaches and state_dict:
            self._teacher.load_state_dict(state_dict["teacher"])
            self._matching.load_state_dict(state_dict["adapters"])
            self._means.load_state_dict(state_dict["means"])

    # The parts --------------------------------------------------------------------------------------------------------

    def _added(self, own: Tensor) -> Tensor | None:
        """Return what turns the step's own loss into the whole one."""
        if not self._factor:
            return None
        added = (self.task_weight - 1) * own
        if not self._teaches:
            return self._factor * added
        known = None if self._cache is None else self._looked_up(self._cache)
        values: dict[str, Tensor] = {}
        if self.loss is not None and self.weight:
            student, teacher = self._teacher.logits(known=known)
            values[loss_name(self.loss)] = self.loss(student, teacher, labels(self._batch))
        assert self._trainer is not None
        values |= self._matching.losses(self._trainer, self._teacher.features())
        self._means.add({f"distillation/{name}": value for name, value in values.items()}, self._teacher.batch_size)
        weights = [self.weight] * bool(self.weight) + [match.weight for match in self.features]
        for factor, value in zip(weights, values.values(), strict=True):
            added = added + factor * value
        return self._factor * added

    def _looked_up(self, cache: LogitCache) -> Tensor:
        """Return the logits of the batch, if it is what the student was given."""
        images = next(iter(self._batch), None) if isinstance(self._batch, Sequence) else self._batch
        if not self._teacher.was_given(images):
            raise InputError(
                "expected a training step that gives the student the images of the batch as they are for cache=True, "
                "got others, mixed or normalized; set cache=False"
            )
        return cache.logits()

    def _leave(self) -> None:
        if self._term is not None:
            self._term.remove()
        self._matching.detach()
        self._teacher.stop()
        self._term, self._cache, self._batch = None, None, None
