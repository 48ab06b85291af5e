"""Train a network with the rounded numbers that it will be run with."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from lightning_prune.arguments import instance, shown, whole_number
from lightning_prune.callbacks.held_zeros import HeldZeros
from lightning_prune.callbacks.pruner import Pruner, pruners
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, check_patterns
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.quantization import (
    QuantizationInterceptor,
    Quantizer,
    UnsupportedBits,
    quantization_of,
    quantize,
    release,
)
from lightning_prune.quantization.quantizers.affine import Affine
from lightning_prune.training import (
    CallbackOrder,
    Moment,
    OrderedCallback,
    check_example,
    check_moment,
    given_input,
    in_steps,
    refuse_sharding,
)

_OF_INTEGERS = {"activations_from": 0.1, "freeze_ranges": 0.65, "freeze_batch_norm": 0.75}
"""When integers do what, as Krishnamoorthi (2018) recommends it, in shares of a run."""

_OF_OTHERS = {"activations_from": 0, "freeze_ranges": 1.0, "freeze_batch_norm": 1.0}
"""The papers of all others round from the first step on and freeze nothing."""


class QuantizationAwareTraining(OrderedCallback):
    """Round weights, and what flows between layers, in every forward pass, and train with what that does to the loss.

    Where to round is found on the graph of `forward`; neither the module's code nor the names of its parameters change,
    and its checkpoints hold the plain float weights. Step sizes and levels that are learned are parameters of the
    module, trained by its optimizer. The module stays quantized after training, in `Trainer.test` for example, until
    `lightning_prune.quantization.quantize.dequantize` makes a plain copy of it, or `release` turns it back into one.

    A weight that is exactly zero stays so, whatever the method: pruners work beside this.

    Args:
        quantizer: The method, by default `Affine()`: 8-bit integers.
        layers: Another method, or None for float, by name patterns of layers (`{"fc": None, "layer1.*":
            Affine(weight_bits=4)}`; the first that matches counts).
        first_bits: Bits of the weights and inputs of the first layer, 32 for float; None for what the method's paper
            has.
        last_bits: The same for the last layer.
        activations_from: When tensors between layers begin to be rounded: optimizer steps, or a fraction of the run.
            Until then their ranges are observed. None, here as in the next two, for what suits the method: 0.1, 0.65
            and 0.75 for integers; the others round at once, and freeze nothing.
        freeze_ranges: When ranges stop to follow what is observed; with a pruner beside this, not before it is done.
        freeze_batch_norm: When batch norms begin to use their running statistics, and leave them as they are; with a
            pruner not before it is done either. The learning rate has to be low by then, about 1 % of that of a whole
            training, since nothing normalizes the weights any more.
        example_input: What `forward` takes, a tensor or a tuple; None for the module's `example_input_array`.

    Raises:
        InputError: If an argument is out of range; when a fit is set up, also if there is no example input, the network
            cannot be traced, nothing can be quantized, or the strategy shards the weights.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2018, arXiv:1712.05877, section 3; Krishnamoorthi, Quantizing Deep Convolutional Networks for Efficient
        Inference, 2018, arXiv:1806.08342, sections 3.2.2 and 4 (batch norm). Each quantizer names its own.
    """

    order = CallbackOrder.QUANTIZATION

    def __init__(
        self,
        quantizer: Quantizer | None = None,
        *,
        layers: Mapping[str, Quantizer | None] | None = None,
        first_bits: int | None = None,
        last_bits: int | None = None,
        activations_from: Moment | None = None,
        freeze_ranges: Moment | None = None,
        freeze_batch_norm: Moment | None = None,
        example_input: ExampleInput | None = None,
    ) -> None:
        self.quantizer: Quantizer = Affine() if quantizer is None else quantizer
        instance("quantizer", Quantizer, self.quantizer, Affine)
        instance("layers", Mapping, {} if layers is None else layers)
        self.layers = {
            pattern: None if own is None else instance(f"layers[{pattern}]", Quantizer, own, Affine)
            for pattern, own in (layers or {}).items()
        }
        if self.layers:
            check_patterns("layers", self.layers)
        for name, bits in {"first_bits": first_bits, "last_bits": last_bits}.items():
            if bits is not None:
                self._check_edge(name, whole_number(name, bits))
        self.first_bits, self.last_bits = first_bits, last_bits
        own = _OF_INTEGERS if self.quantizer.integer else _OF_OTHERS
        given = (activations_from, freeze_ranges, freeze_batch_norm)
        moments = {name: own[name] if at is None else at for name, at in zip(own, given, strict=True)}
        self.moments = {name: check_moment(at, name) for name, at in moments.items()}
        self.example_input = check_example(example_input)
        self._module: LightningModule | None = None
        self._quantization: QuantizationInterceptor | None = None
        self._steps: dict[str, int] = {}
        self._frozen: list[nn.Module] = []

    def _check_edge(self, name: str, bits: int) -> None:
        try:
            self.quantizer.of_bits(bits)
        except UnsupportedBits as error:
            raise InputError(f"expected {name} of {error.expected}, got {shown(error.got)}") from error

    def objection(self, other: OrderedCallback) -> str | None:
        """Return why another callback makes no sense beside this one; None if it does."""
        chooses = isinstance(other, Pruner) and not isinstance(other, HeldZeros)
        filters = isinstance(other, Pruner) and isinstance(other.granularity, Channel)
        if self.quantizer.whole_filters and chooses and not filters:
            return (
                f"{type(self.quantizer).__name__} has no level for a weight that is zero in a filter that is not; "
                "prune filters, or choose another quantizer"
            )
        return None

    # The run ----------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Quantize the module, unless it is already; what is learned has to be there before the optimizer is."""
        super().setup(trainer, pl_module, stage)
        self._module = pl_module
        if stage == "fit":
            refuse_sharding(trainer)
            self._quantize(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse zeros that a method has no level for, and an optimizer that leaves out what is learned."""
        partly_zero = self._active.partly_zero() if self.quantizer.whole_filters else None
        if partly_zero is not None:
            raise InputError(
                f"expected filters that are zero or have no zeros, got others in {partly_zero}, for which "
                f"{type(self.quantizer).__name__} has no level; choose another quantizer"
            )
        trained = {
            id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]
        }
        for name, parameter in self._active.rounding.named_parameters():
            if parameter.requires_grad and id(parameter) not in trained:
                raise InputError(
                    f"expected an optimizer of all parameters of {type(pl_module).__name__}, with {name} that "
                    f"{type(self.quantizer).__name__} learns, got one without; build it from self.parameters()"
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out when in the run to do what."""
        self._steps = {name: in_steps(at, trainer, name) for name, at in self.moments.items()}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Observe, round and freeze as it is time for."""
        step = trainer.global_step
        pruned = all(pruner.is_final for pruner in pruners(trainer))
        self._active.rounding.observing = not pruned or step < max(1, self._steps["freeze_ranges"])
        self._active.rounding.quantizing = step >= self._steps["activations_from"]
        if pruned and step >= self._steps["freeze_batch_norm"]:
            norms = (module for module in pl_module.modules() if isinstance(module, _BatchNorm) and module.training)
            for norm in norms:
                norm.training = False
                self._frozen.append(norm)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Refuse a step whose loss, `()`, was computed without the quantized network."""
        if not self._active.ran:
            raise InputError(
                f"expected {type(pl_module).__name__}.training_step to call what its forward calls, got one that goes "
                "round it; call self(x)"
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Agree with all processes on what was observed, before weight decay takes it in."""
        if trainer.world_size > 1 and self._active.rounding.observing:
            parts = self._active.rounding.activations().values()
            tensors = [t for part in parts for t in part.state_dict().values() if t.is_floating_point()]
            if tensors:
                means = trainer.strategy.reduce(torch.stack([t.reshape(()) for t in tensors]), reduce_op="mean")
                for tensor, mean in zip(tensors, means, strict=True):
                    tensor.copy_(mean)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Observe nothing but training batches."""
        self._active.rounding.observing = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to go on with a network that has diverged, and log the ranges."""
        self._active.check()
        limits = self._active.rounding.limits()
        if limits:
            found = torch.stack([limit.detach().float() for limit in limits.values()])
            pl_module.log_dict({"quantization/limit_min": found.min(), "quantization/limit_max": found.max()})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give batch norms back their mode."""
        self._thaw()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give batch norms back their mode."""
        self._thaw()

    def report(self, module: nn.Module) -> dict[str, Any]:
        """Return how many layers are quantized, and how."""
        return {"quantizer": str(self.quantizer), "layers": len(self._active.layer_calls)}

    # State ------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return ranges, step sizes and levels, on the CPU, and whether tensors are rounded yet."""
        if self._quantization is None:
            return {}
        state = {name: value.cpu() for name, value in self._quantization.rounding.state_dict().items()}
        return {"state": state, "quantizing": self._quantization.rounding.quantizing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint, also of one that is only looked at, in `Trainer.test` for example."""
        if state_dict:
            assert self._module is not None
            self.restore(self._module, state_dict["state"])
            self._active.rounding.quantizing = state_dict["quantizing"]

    def restore(self, module: LightningModule, state: Mapping[str, Tensor]) -> None:
        """Quantize a module as one was that this callback, or one with the same arguments, has trained.

        Args:
            module: With the trained weights, slim or not.
            state: What `save_slim` has written under the key `quantization`: tensors of any shape by name.

        Raises:
            InputError: If the module is quantized in another way than that one was.
        """
        self._quantize(module)
        self._active.rounding.restore(state)
        self._active.rounding.quantizing = True

    # The parts --------------------------------------------------------------------------------------------------------

    @property
    def _active(self) -> QuantizationInterceptor:
        assert self._quantization is not None
        return self._quantization

    def _quantize(self, pl_module: LightningModule) -> None:
        """Quantize a module unless this has done so before."""
        if self._quantization is not None and quantization_of(pl_module) is self._quantization:
            return
        release(pl_module)
        example = given_input(pl_module, self.example_input)
        if example is None:
            raise InputError(
                "expected an example input when a fit is set up, since what QuantizationAwareTraining learns has to be "
                f"there before the optimizer is, got none; pass example_input or set {type(pl_module).__name__}."
                "example_input_array"
            )
        self._quantization = quantize(pl_module, example, self.quantizer, self.layers, self.first_bits, self.last_bits)
        for name, reason in self._quantization.left.items():
            rank_zero_info(f"{type(self).__name__} leaves {name} as it is: {reason}")

    def _thaw(self) -> None:
        for norm in self._frozen:
            norm.training = True
        self._frozen = []
