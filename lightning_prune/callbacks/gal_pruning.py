"""GAL: soft masks over blocks, branches or channels, trained against a discriminator, tell which of them go."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Literal, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.arguments import items, number, one_of, whole_number
from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.callbacks.timed_pruner import TimedPruner
from lightning_prune.distillation import Teacher
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import (
    VARIANTS,
    AdversarialSearch,
    MaskableKind,
    Quota,
    check_sparsity,
    find_maskable,
)
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.slimming import TracedModel
from lightning_prune.training import (
    EpochMeans,
    Moment,
    OrderedCallback,
    average_gradients,
)


class GALPruning(TimedPruner):
    """Learn without labels which blocks, branches or channels a network can do without, remove them, and train on.

    Each structure is multiplied by a soft mask, a number of at least 0. Until `end` the network trains to give what the
    baseline gives, as a discriminator tells it and as the distance of the outputs does; the L1 norm of the masks,
    minimized by FISTA, takes them to exactly zero one after the other. Then the structures whose masks are zero go, in
    all that exists for them, the other masks become part of the weights, and the network trains on with its own loss.
    `slim` makes a removed block its shortcut, and takes a removed branch out of its concatenation. Channels go one by
    one, whatever widths that leaves: there is no `round_to`.

    The module's own optimizer trains the network during the search as well; that of the paper is SGD with learning rate
    0.01, momentum 0.9 and weight decay 2e-4. What its `training_step` returns does not count until the search is over.

    At the end of every epoch these are logged: during the search the terms of its loss (`gal/adversarial`,
    `gal/alignment`, `gal/l1`), with the own loss of the discriminator, `gal/discriminator`, and its accuracy,
    `gal/discriminator_accuracy`;
    always `gal/removed`, the fraction of structures at zero, `gal/kept/<layers>`, how many are not, and the histogram
    of the masks, fractions of them in `gal/masks/0`, `gal/masks/0-0.25`, ..., `gal/masks/1-`.

    Args:
        teacher: The baseline, a network of the architecture of `student`, which begins with its weights; None for the
            module as it is.
        checkpoint: File or run folder with the baseline's weights.
        sparsity: Fraction of the structures that go: the L1 norm takes as many masks, the lowest at the time, with a
            weight that grows from a hundredth to a hundred times `l1`, and the search stops as soon as they are at
            zero. None for those that the L1 norm of all masks brings to zero, as in the paper; which has masks that
            begin at random, half of them at or near zero, while all of these begin at 1 and may shrink together.
        structures: What is masked, of `"block"`, `"branch"` and `"channel"`; None for the largest that the model has,
            as in the paper: blocks of ResNets, branches of GoogLeNet, channels of VGG and DenseNet.
        variant: `"paper"`, or `"official"` for what its code does: a linear discriminator behind two sigmoids, masks
            that begin as N(0, 1) and are clipped at 0, gradients of a single batch at the masks themselves, the L1 norm
            counted twice, a baseline in training mode.
        alignment: Weight of the mean squared distance between the outputs; the code has 1 for ResNets, 0.1 for the
            other networks.
        l1: Weight of the masks' L1 norm; the code has 0.6 and 0.8 for ResNet-56, 1e-3 for VGG, 1e-2 for DenseNet and
            GoogLeNet.
        learning_rate: Of masks and discriminator; it falls to a tenth after each 30 % of the search.
        end: When the search is over, in optimizer steps, or as a fraction of the run if it is a float; in the rest of
            the run the network recovers.
        every: From one update of the masks to the next; the code has 200 steps, of 39,100.
        student: Name of the part of the module that gives logits, `""` for the module itself.
        seed: Seed of discriminator and masks.
        example_input: What `forward` takes, a tensor or a tuple; by default the module's `example_input_array`, or else
            the first training batch.

    Raises:
        InputError: If an argument is out of range; when training starts, also if the model has no such structures, the
            baseline does not fit it, another callback prunes or distils, the module optimizes manually, or the strategy
            shards the weights.

    Reference:
        Lin et al., Towards Optimal Structured CNN Pruning via Generative Adversarial Learning, 2019, arXiv:1903.09291,
        equations 1 to 10. The network minimizes `-log D` in place of `log(1 - D)`, as its code does.
    """

    def __init__(
        self,
        teacher: nn.Module | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        sparsity: float | None = 0.4,
        structures: Collection[MaskableKind] | None = None,
        variant: Literal["paper", "official"] = "paper",
        alignment: float = 1.0,
        l1: float = 0.6,
        learning_rate: float = 0.01,
        end: Moment = 0.5,
        every: Moment = 0.01,
        student: str = "",
        seed: int = 0,
        example_input: ExampleInput | None = None,
    ) -> None:
        self.quota = None if sparsity is None else Quota(check_sparsity(sparsity), "global")
        kinds = get_args(MaskableKind)
        if structures is not None and not items("structures", structures, ", ".join(kinds)):
            raise InputError("expected structures to be None or a list of at least one, got an empty one")
        self.structures = structures and tuple(one_of("structures", one, kinds) for one in structures)
        self.variant = VARIANTS[one_of("variant", variant, tuple(VARIANTS))]
        self.alignment = float(number("alignment", alignment, "[0, inf)"))
        self.l1 = float(number("l1", l1, "[0, inf)"))
        self.learning_rate = float(number("learning_rate", learning_rate, "[0, inf)"))
        self.seed = whole_number("seed", seed, least=None)
        self._teacher = Teacher(teacher, checkpoint, student, evaluating=self.variant.evaluating)
        super().__init__(Channel(residual="inner"), example_input, begin=0, end=end, every=every)
        if end == 0:
            raise InputError("expected end of the search after the beginning of the run, got 0")

    def _forget(self) -> None:
        super()._forget()
        self._trainer: Trainer | None = None
        self._search: AdversarialSearch | None = None
        self._state: Mapping[str, Any] | None = None
        self._means = EpochMeans()
        self._removed: dict[str, list[int]] = {}
        self._census: dict[str, float] = {}

    # The run ----------------------------------------------------------------------------------------------------------

    def objection(self, other: OrderedCallback) -> str | None:
        """Return why another callback makes no sense beside this one; None if it does."""
        beside = isinstance(other, Pruner | KnowledgeDistillation)
        return "the search has a loss and masks of its own; use the other in a fit after it" if beside else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take in the baseline."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._trainer = trainer
            self._teacher.setup(trainer, pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, begin with the baseline's weights, and hook into module and optimizers."""
        if self._state is None and not self.is_final:
            self._teacher.give_weights_to(pl_module)
        super().on_fit_start(trainer, pl_module)
        self._teacher.start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Make up for what had to wait for the first batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._search is not None:
            self._teacher.begin_step(trainer, batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Let the optimizer see the parameters without masks, and their gradients."""
        if self._search is not None:
            self._search.unfold()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the masks if that is due."""
        self._teacher.end_step()
        if self._search is not None:
            self._search.fold()  # also where a loss scaler has skipped the step
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate with the masks themselves."""
        if self._search is not None:
            self._search.fold_masks()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the search."""
        if self._search is not None:
            self._search.fold()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log where the search is, or what it has found."""
        if self._search is not None:
            self._census = self._search.census()
        pl_module.log_dict({f"gal/{name}": value for name, value in self._means.take().items()})
        pl_module.log_dict({f"gal/{name}": value for name, value in self._census.items()})

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave module and optimizers, with the masks in the weights."""
        super().on_exception(trainer, pl_module, exception)
        self._teacher.stop()
        if self._search is not None:
            self._search.fold_masks()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave module and optimizers."""
        super().teardown(trainer, pl_module, stage)
        self._teacher.stop()

    def state_dict(self) -> dict[str, Any]:
        """Return the masks in force, and the search as long as it is not over."""
        search = None if self._search is None else self._search.state_dict()
        found = {"removed": self._removed, "census": self._census}
        parts = {"search": search, "teacher": self._teacher.state_dict(), "means": self._means.state_dict()}
        return {**super().state_dict(), **parts, "found": found}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._state = state_dict["search"]
        self._removed, self._census = state_dict["found"]["removed"], state_dict["found"]["census"]
        self._teacher.load_state_dict(state_dict["teacher"])
        self._means.load_state_dict(state_dict["means"])

    def report(self, module: nn.Module) -> dict[str, Any]:
        """Return which structures are gone."""
        return {"removed": self._removed}

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super()._plan(trainer, pl_module)
        self._enter_loss(pl_module, self._replace_loss)

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        if traced is None:
            return False
        if self.is_final:
            return True
        found = find_maskable(pl_module, traced.coupling, self.structures)
        number = sum(structure.size for structure in found)
        if self.quota and self.quota.fraction and not self.quota.number(number):
            raise InputError(
                f"expected a sparsity that removes at least one of the {number} structures of this model, got "
                f"{self.quota.fraction}; raise it, or mask smaller ones with structures=['channel']"
            )
        self._search = AdversarialSearch(pl_module, found, self.variant, self.alignment, self.l1, self.seed)
        if self._state is not None:
            self._search.load_state_dict(self._state)
            self._state = None
        return True

    @property
    def _rate(self) -> float:
        """The learning rate at this moment of the search."""
        assert self._timeline is not None
        assert self._trainer is not None
        return self.learning_rate * 0.1 ** int(self._timeline.progress(self._trainer.global_step) / 0.3)

    def _replace_loss(self, loss: Tensor) -> Tensor | None:
        """Return what turns the step's own loss into that of the search."""
        if self._search is None or self._trainer is None:
            return None
        average = partial(average_gradients, self._trainer)
        searched, terms = self._search.loss(*self._teacher.logits(), self._rate, average)
        self._means.add(terms, samples=1)  # every step counts alike, since l1 is no mean over samples
        return searched - loss

    @torch.no_grad()
    def _after_step(self, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._search is not None:
            self._search.stepped()
        super()._after_step(pl_module, optimizer)

    def _make_choice(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        if self._search is None or step == 0:
            return
        assert self._timeline is not None
        pressure = 1.0 if self.quota is None else 0.01 * 1e4 ** self._timeline.progress(step)
        self._search.update(self.learning_rate, self.quota, pressure)
        if self.quota is not None and self.quota.fraction > 0:
            self._final = self._final or self._search.reached(self.quota)
        if self._final:
            self._settle(trainer, pl_module, self._search)

    def _settle(self, trainer: Trainer, pl_module: LightningModule, search: AdversarialSearch) -> None:
        """Remove what the search has found, and go on with the module's own loss."""
        removed = search.settle(self.quota, trainer.optimizers)
        self._census = search.census()
        found = zip(search.structures, removed, strict=True)
        self._removed = {one.name: gone.nonzero().flatten().tolist() for one, gone in found if gone.any()}
        masks = search.hard_masks(removed)
        self._search, self._means = None, EpochMeans()
        self._hold(trainer, pl_module, masks)
