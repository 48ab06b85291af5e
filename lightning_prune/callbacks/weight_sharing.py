"""Few values for many weights: after pruning, the second step of Deep Compression."""

from collections.abc import Mapping
from typing import Any, get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.arguments import instance, number, one_of, whole_number
from lightning_prune.callbacks.pruner import Pruner, pruners
from lightning_prune.callbacks.quantization_aware_training import QuantizationAwareTraining
from lightning_prune.graph import LayerPatterns, by_layer, check_patterns, holder
from lightning_prune.pruning import Initialization, SharedWeights, cluster, trained_weights
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.slimming import TracedModel
from lightning_prune.training import (
    CallbackOrder,
    Moment,
    OrderedCallback,
    check_agreement,
    check_moment,
    in_steps,
)

_MOST_BITS = 8
_CONVOLUTION_BITS, _LINEAR_BITS = 8, 5
_UNSHARED = 32


class WeightSharing(Pruner):
    """Let the weights of each layer share a few values, and train the values.

    At `begin` the weights of a layer that are not zero are sorted into clusters of about the same value by k-means, and
    become that of their cluster. From then on they stay together: each cluster moves as one, and zeros stay zeros.
    Beside a pruner, `[GradualPruning(...), WeightSharing()]`, this is Deep Compression; it waits until nothing more
    is pruned. `lightning_prune.export.packed.write_packed` writes what comes out of it as a small file.

    Parameters keep their names, shapes and optimizers: before a step each weight gets the gradient of the value that it
    shares, and after it the weights of a cluster are given their mean. The running averages of optimizers begin anew
    when the weights are clustered.

    Args:
        bits: Of the code of a weight, 1 to 8: a layer has `2**bits - 1` values, and zero. None for the paper's: 8 for
            convolutions and 5 for all other layers.
        layers: Other bits by layer name pattern (`{"conv1": 6, "fc": None}`; the first that matches counts), None for a
            layer that is left as it is.
        initialization: Where k-means begins; see `lightning_prune.pruning.shared_weights.Initialization`.
        begin: When weights are clustered: optimizer steps, or a fraction of the run if it is a float.
        rate: Learning rate of the values, as a factor of the weights'. The gradient of a value is the sum of those of
            all weights that share it, thousands perhaps, for which a rate that suits a weight is too high: the paper's
            1.0 wants an optimizer of a low rate. None for one over their number, which takes the same steps as the
            weights would if they could only move together. Optimizers such as Adam go by the sign of a gradient
            more than by its size, and know little difference.

    Raises:
        InputError: If an argument is out of range; when training starts, also if it does not fit the model or the
            length of the run.

    Reference:
        Han, Mao, Dally, Deep Compression, 2016, arXiv:1510.00149, section 3 and equation 3.
    """

    order = CallbackOrder.SHARING

    def __init__(
        self,
        bits: int | None = None,
        *,
        layers: Mapping[str, int | None] | None = None,
        initialization: Initialization = "linear",
        begin: Moment = 0.75,
        rate: float | None = 1.0,
    ) -> None:
        self.bits = bits if bits is None else _check_bits("bits", bits)
        self.layers = {
            pattern: own if own is None else _check_bits(f"layers[{pattern}]", own)
            for pattern, own in instance("layers", Mapping, {} if layers is None else layers).items()
        }
        if self.layers:
            check_patterns("layers", self.layers)
        self.initialization: Initialization = one_of("initialization", initialization, get_args(Initialization))
        self.begin = check_moment(begin, "begin")
        self.rate = None if rate is None else number("rate", rate, "(0, inf)")
        super().__init__(Element(), None)

    def _forget(self) -> None:
        super()._forget()
        self._shared: SharedWeights | None = None
        self._epoch: float | None = None
        self._begin = 0
        self._bits: dict[str, int] = {}
        self._waiting = False

    @property
    def is_final(self) -> bool:
        """Whether the weights are clustered."""
        return self._shared is not None

    @property
    def final_epoch(self) -> float | None:
        """Epochs after which they were."""
        return self._epoch

    @property
    def masks(self) -> dict[str, Tensor] | None:
        """The bool masks in force by parameter name, in its shape, True = a weight that is not zero for good."""
        return None if self._shared is None else {name: codes != 0 for name, codes in self._shared.codes.items()}

    def objection(self, other: OrderedCallback) -> str | None:
        """Return why another callback makes no sense beside this one; None if it does."""
        if isinstance(other, QuantizationAwareTraining):
            return "it rounds every weight to levels of its own; leave one of the two out"
        return None

    # The run ----------------------------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take its place, and start anew for each fit, but with the clusters of an earlier one on the same module."""
        shared, epoch = self._shared, self._epoch
        super().setup(trainer, pl_module, stage)
        if shared is not None and shared.belong_to(pl_module):
            self._shared, self._epoch = shared, epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, and hook into the optimizers."""
        super().on_fit_start(trainer, pl_module)
        self._hooks += [optimizer.register_step_pre_hook(self._before_step) for optimizer in trainer.optimizers]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Cluster the weights if that is due, before the first step for example."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._advance(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Cluster the weights if that is due, so that validation and checkpoints see the values that they share."""
        self._advance(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the run has ended before that."""
        if self._shared is None:
            rank_zero_warn(
                "The run ended before its weights were clustered: set begin, or the end of pruning, earlier."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the codes of the weights, on the CPU, and when they were found."""
        codes = self._loaded if self._shared is None else self._shared.codes
        return {"codes": codes and {name: own.cpu() for name, own in codes.items()}, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of a checkpoint."""
        self._loaded, self._epoch = state_dict["codes"], state_dict["epoch"]

    def report(self, module: nn.Module) -> dict[str, Any]:
        """Return how many layers share weights, and how many values all of them have."""
        codes = {} if self._shared is None else self._shared.codes
        values = [int(own.reshape(-1).bincount()[1:].count_nonzero()) for own in codes.values()]
        return {"layers": len(codes), "values": sum(values)}

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin = in_steps(self.begin, trainer, "begin")

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        weights = {holder(name): (name, weight) for name, weight in trained_weights(pl_module).items()}
        chosen = {pattern: _UNSHARED if own is None else own for pattern, own in self.layers.items()}
        for layer, own in by_layer("layers", chosen, weights, LayerPatterns(pl_module)).items():
            name, weight = weights[layer]
            usual = _CONVOLUTION_BITS if weight.ndim > 2 else _LINEAR_BITS
            self._bits[name] = int(own) or self.bits or usual
        return True

    def _advance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cluster the weights if it is time, and nothing more will be pruned."""
        if self._shared is not None or trainer.global_step < self._begin:
            return
        pruning = [type(one).__name__ for one in pruners(trainer) if one is not self and not one.is_final]
        if pruning and not self._waiting:
            rank_zero_info(f"{type(self).__name__} waits until {' and '.join(pruning)} will remove no more.")
        self._waiting = bool(pruning)
        if not pruning:
            self._cluster(trainer, pl_module)

    def _cluster(self, trainer: Trainer, pl_module: LightningModule) -> None:
        codes = {}
        for name, bits in self._bits.items():
            if bits != _UNSHARED:
                weight = pl_module.get_parameter(name).data
                centroids, codes[name] = cluster(weight, bits, self.initialization)
                values = torch.cat((centroids.new_zeros(1), centroids))
                weight.copy_(values[codes[name].int()])
                _begin_anew(trainer, pl_module.get_parameter(name))
        self._epoch = trainer.global_step * trainer.accumulate_grad_batches / trainer.num_training_batches
        self._hold(trainer, pl_module, codes)

    def _hold(self, trainer: Trainer, pl_module: LightningModule, masks: Mapping[str, Tensor]) -> None:
        """Keep together from now on what has the same code; what has code 0 is masked."""
        check_agreement(trainer, masks)
        self._shared = SharedWeights(pl_module, masks)
        self._enforce()

    def _enforce(self) -> None:
        if self._shared is not None:
            self._shared.tie()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        """Add up the gradients of a step that is really made, after they were clipped."""
        # What Lightning hands over as a closure computes the gradients and clips them, so there are none before it ran.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._add_gradients(optimizer)
            return None

        def then_add() -> Any:
            loss = closure()
            self._add_gradients(optimizer)
            return loss

        return args[:1], {**kwargs, "closure": then_add}

    def _add_gradients(self, optimizer: Optimizer) -> None:
        if self._shared is not None:
            parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
            self._shared.add_gradients(parameters, self.rate)

    def _after_step(self, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._enforce()


def _check_bits(name: str, bits: int) -> int:
    return int(whole_number(name, bits, most=_MOST_BITS))


def _begin_anew(trainer: Trainer, parameter: Tensor) -> None:
    """Let the optimizers forget what they know of a parameter."""
    for optimizer in trainer.optimizers:
        for state in optimizer.state.get(parameter, {}).values():
            if isinstance(state, Tensor):
                state.zero_()
