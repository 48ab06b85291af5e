"""What all pruning callbacks share: finding what competes, holding masks, and saving them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import Granularity, HeldMasks
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.slimming import TracedModel
from lightning_prune.training import (
    CallbackOrder,
    OrderedCallback,
    batch_input,
    check_agreement,
    check_example,
    given_input,
    refuse_sharding,
)

_DENSE = (
    "as before, since dense kernels compute with zeros as with other numbers; whole channels do get faster "
    "(Channel(), granularity=output_channel), and 2:4 on sparse tensor cores (NM(2, 4), granularity=n_m, then "
    "to_semi_structured); a file gets smaller by weight sharing (strategy=[gmp,weight_sharing] export=lpz)"
)
_SPARSE_CORES = (
    "as before in dense kernels; on GPUs with sparse tensor cores lightning_prune.export.to_semi_structured puts 2:4 "
    "weights, in half precision, into the layout that these compute with"
)


class Pruner(OrderedCallback, ABC):
    """Hold masks over a module's parameters while it trains: after every optimizer step, and in every validation.

    Args:
        granularity: How weights are cut into units.
        example_input: What `forward` takes, a tensor or a tuple; None for the module's `example_input_array`, or else
            the first training batch.
    """

    order = CallbackOrder.PRUNING

    def __init__(self, granularity: Granularity, example_input: ExampleInput | None) -> None:
        self.granularity = granularity
        self.example_input = check_example(example_input)
        self._forget()

    # What a method fills in -------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def is_final(self) -> bool:
        """Whether what is pruned will not change any more."""

    @property
    @abstractmethod
    def final_epoch(self) -> float | None:
        """Epochs after which it does not; None before training starts, and if that never comes."""

    @abstractmethod
    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out when in the run to do what; refuse what cannot be done."""

    @abstractmethod
    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        """Find what can be pruned; return False if the module has to be `traced` for that, and is not yet."""

    # The run ----------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self.dense_state: dict[str, Tensor] | None = None
        """The module's state just before it was pruned for good, on the CPU; None if that is not kept."""
        self.traced: TracedModel | None = None
        """The module with an example of what it takes, once one is known: exported once, for all that ask for it."""
        self._held: HeldMasks | None = None
        self._loaded: Mapping[str, Tensor] | None = None
        self._found = False
        self._hooks: list[RemovableHandle] = []

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """The bool masks in force by parameter name, True = kept; None before the first choice.

        They are of any shape that broadcasts over the parameter.
        """
        return None if self._held is None else self._held.masks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take its place, and start anew for each fit, but with the masks of an earlier one on the same module."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            kept = self.state_dict() if self._held is not None and self._held.belong_to(pl_module) else None
            self._forget()
            if kept is not None:
                self.load_state_dict(kept)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, find what can be pruned, and hook into the optimizers."""
        refuse_sharding(trainer)
        self._look(trainer, pl_module, given_input(pl_module, self.example_input))
        if self._loaded is not None:
            self._hold(trainer, pl_module, self._loaded)
            self._loaded = None
        self._hooks = [
            optimizer.register_step_post_hook(self._step_hook(pl_module)) for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out when in the run to do what."""
        # Not before: the length of the run is known once the loaders are there, and Lightning takes a loader that is
        # there before a checkpoint's state for one without.
        self._plan(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Make up for what had to wait for the first batch."""
        if batch_idx == 0:
            self._enforce()  # in case a callback has put averaged weights in their place
        if not self._found:
            self._look(trainer, pl_module, batch_input(pl_module, batch))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Mask the weights again in case a callback has put averaged ones in their place."""
        if batch_idx == 0:
            self._enforce()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mask the weights again in case a callback has averaged them at the end of training."""
        self._enforce()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the optimizers."""
        self._unhook()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the optimizers."""
        self._unhook()

    def report(self, module: nn.Module) -> dict[str, Any]:
        """Return what zeros do for speed, where `slim` cannot cut them out."""
        if isinstance(self.granularity, Channel) and self.granularity.coupled:
            return {}
        return {"speed": _SPARSE_CORES if isinstance(self.granularity, NM) else _DENSE}

    def state_dict(self) -> dict[str, Any]:
        """Return the masks in force, on the CPU."""
        masks = self.masks
        return {"masks": masks and {name: mask.cpu() for name, mask in masks.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self._loaded = state_dict["masks"]

    # The parts --------------------------------------------------------------------------------------------------------

    def _look(self, trainer: Trainer, pl_module: LightningModule, arguments: tuple[Tensor, ...] | None) -> None:
        """Find what can be pruned with what `forward` takes, if that is known."""
        if arguments is not None:
            self.traced = traced_model(trainer, pl_module, arguments)
        self._found = self._find(pl_module, self.traced)

    def _hold(self, trainer: Trainer, pl_module: LightningModule, masks: Mapping[str, Tensor]) -> None:
        """Keep what `masks` remove at zero from now on."""
        check_agreement(trainer, masks)
        if self._held is None or not self._held.replace(masks):
            self._held = HeldMasks(pl_module, masks)
        self._held.enforce(trainer.optimizers)

    def _enforce(self) -> None:
        if self._held is not None:
            self._held.enforce()

    def _after_step(self, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Do what is to be done after every step that an optimizer really made."""
        if self._held is not None:
            self._held.enforce((optimizer,))

    def _step_hook(self, pl_module: LightningModule) -> Callable[[Optimizer, Any, Any], None]:
        return lambda optimizer, args, kwargs: self._after_step(pl_module, optimizer)

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def pruners(trainer: Trainer) -> list[Pruner]:
    """Return the pruners among a trainer's callbacks."""
    return [callback for callback in trainer.callbacks if isinstance(callback, Pruner)]  # type: ignore[attr-defined]


def traced_model(trainer: Trainer, pl_module: LightningModule, arguments: tuple[Tensor, ...]) -> TracedModel:
    """Return a module with what its `forward` takes: that of a pruner of this trainer, if one has the same example.

    The arguments are of any shape.
    """
    known = [pruner.traced for pruner in pruners(trainer) if pruner.traced is not None]
    return next((traced for traced in known if traced.is_of(pl_module, arguments)), TracedModel(pl_module, arguments))
