"""Curves of what is left of a model while it is pruned."""

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_prune.callbacks.pruner import pruners, traced_model
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import layer_labels, layer_weights
from lightning_prune.slimming import Coupling, Group, model_size, removal_of_zero_filters
from lightning_prune.training import CallbackOrder, OrderedCallback, batch_input, check_example, given_input

log = logging.getLogger(__name__)


class SparsityMonitor(OrderedCallback):
    """Log, at the end of every epoch, the sparsity counted in the weights and the size of the model that is left.

    * `sparsity/total`: fraction of exact zeros among the weights of all layers, trained or not, also shown in the
      progress bar; biases, normalizations and embeddings do not count.
    * `sparsity/<layer>`: the same for one layer, or `sparsity/<weight>` for each weight of a layer that has several.
    * `macs/ratio`, `params/ratio`: multiply-accumulates and parameters of the model without the channels whose filters
      are all zero, and without the blocks and branches that give nothing but zeros, over those of the dense model. Of
      a module that cannot be followed, one whose `forward` takes no tensors for example, they are not logged, and the
      log says why.

    Args:
        example_input: What `forward` takes, a tensor or a tuple; by default that of a pruner beside it, or else the
            module's `example_input_array`, or else the first training batch.

    Raises:
        InputError: If the example input is none; when training starts, also if one is known and the module cannot be
            traced with it.
    """

    order = CallbackOrder.MEASURING

    def __init__(self, example_input: ExampleInput | None = None) -> None:
        self.example_input = check_example(example_input)
        self._coupling: Coupling | None = None
        self._groups: list[Group] = []
        self._looked = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take its place, and forget the model of an earlier fit."""
        super().setup(trainer, pl_module, stage)
        self._coupling, self._looked = None, False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trace the model if its input is known already."""
        given = [self.example_input, *(pruner.example_input for pruner in pruners(trainer))]
        arguments = given_input(pl_module, next((example for example in given if example is not None), None))
        if arguments is not None:
            self._trace(trainer, pl_module, arguments)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Trace the model with the first batch if its input was not known before."""
        if not self._looked:
            try:
                self._trace(trainer, pl_module, batch_input(pl_module, batch))
            except InputError as error:
                log.warning("SparsityMonitor logs no macs/ratio and no params/ratio: %s", error)
                self._looked = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count and log; validation and the checkpoint of this epoch see the same weights."""
        metrics = measure(pl_module, self._coupling, self._groups)
        total = metrics.pop("sparsity/total")
        # All processes count the same; told apart, Lightning would warn of it for each name.
        pl_module.log("sparsity/total", total, prog_bar=True, sync_dist=True)
        pl_module.log_dict(metrics, sync_dist=True)

    def _trace(self, trainer: Trainer, pl_module: LightningModule, arguments: tuple[Tensor, ...]) -> None:
        self._coupling = traced_model(trainer, pl_module, arguments).coupling
        self._groups, self._looked = self._coupling.groups(), True


@torch.no_grad()
def measure(model: nn.Module, coupling: Coupling | None, groups: list[Group]) -> dict[str, float]:
    """Return what `SparsityMonitor` logs, by name.

    Args:
        model: The model as it is now.
        coupling: Its channels, of a walk at any earlier time; None where it cannot be followed.
        groups: The groups whose channels count as gone when their filters are all zero.
    """
    weights = layer_weights(model)
    zeros = torch.stack([(weight == 0).sum() for weight in weights.values()]).tolist() if weights else []
    sizes = [weight.numel() for weight in weights.values()]
    metrics = {"sparsity/total": sum(zeros) / max(1, sum(sizes))}
    metrics |= {
        f"sparsity/{name}": zero / size for name, zero, size in zip(layer_labels(weights), zeros, sizes, strict=True)
    }
    if coupling is None:
        return metrics
    tensors = dict(model.named_parameters())
    dense, left = model_size(coupling), model_size(coupling, removal_of_zero_filters(coupling, groups, tensors))
    metrics["macs/ratio"] = left.macs / max(1, dense.macs)
    metrics["params/ratio"] = left.parameters / max(1, dense.parameters)
    return metrics
