"""Curves of what is left of a model while it is pruned."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_prune.callbacks.pruner import pruners
from lightning_prune.graph import ExampleInput, holder
from lightning_prune.pruning import layer_weights
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.slimming import Coupling, Group, couple
from lightning_prune.training import CallbackOrder, OrderedCallback, batch_input, given_input


class SparsityMonitor(OrderedCallback):
    """Log, at the end of every epoch, the sparsity counted in the weights and the size of the model that is left.

    * `sparsity/total`: fraction of exact zeros among the weights of all layers, trained or not, also shown in the
      progress bar; biases, normalizations and embeddings do not count.
    * `sparsity/<layer>`: the same for one layer, or `sparsity/<weight>` for each weight of a layer that has several.
    * `macs/ratio`, `params/ratio`: multiply-accumulates and parameters of the model without the channels whose filters
      are all zero, and without the blocks and branches that give nothing but zeros, over those of the dense model.

    Args:
        example_input: What `forward` takes, a tensor or a tuple; by default that of a pruner beside it, or else the
            module's `example_input_array`, or else the first training batch.
    """

    order = CallbackOrder.MEASURING

    def __init__(self, example_input: ExampleInput | None = None) -> None:
        self.example_input = example_input
        self._coupling: Coupling | None = None
        self._groups: list[Group] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take its place, and forget the model of an earlier fit."""
        super().setup(trainer, pl_module, stage)
        self._coupling = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Trace the model if its input is known already."""
        given = [self.example_input, *(pruner.example_input for pruner in pruners(trainer))]
        arguments = given_input(pl_module, next((example for example in given if example is not None), None))
        if arguments is not None:
            self._trace(pl_module, arguments)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Trace the model with the first batch if its input was not known before."""
        if self._coupling is None:
            self._trace(pl_module, batch_input(pl_module, batch))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count and log; validation and the checkpoint of this epoch see the same weights."""
        if self._coupling is None:
            return
        metrics = measure(pl_module, self._coupling, self._groups)
        total = metrics.pop("sparsity/total")
        pl_module.log("sparsity/total", total, prog_bar=True)
        pl_module.log_dict(metrics)

    def _trace(self, pl_module: LightningModule, arguments: tuple[Tensor, ...]) -> None:
        self._coupling = couple(pl_module, arguments)
        self._groups = self._coupling.groups()


@torch.no_grad()
def measure(model: nn.Module, coupling: Coupling, groups: list[Group]) -> dict[str, float]:
    """Return what `SparsityMonitor` logs, by name.

    Args:
        model: The model as it is now.
        coupling: Its channels, of a walk at any earlier time.
        groups: The groups whose channels count as gone when their filters are all zero.
    """
    weights = layer_weights(model)
    zeros = torch.stack([(weight == 0).sum() for weight in weights.values()]).tolist() if weights else []
    sizes = [weight.numel() for weight in weights.values()]
    metrics = {"sparsity/total": sum(zeros) / max(1, sum(sizes))}
    metrics |= {
        f"sparsity/{name}": zero / size for name, zero, size in zip(_labels(weights), zeros, sizes, strict=True)
    }
    tensors = dict(model.named_parameters())
    silent = coupling.silent(tensors)
    dead = {name for one in silent for name in one.stored}
    pruned = [silent_units(tensors, group, dead) for group in groups]
    removed = coupling.without(groups, pruned, silent)
    keep = coupling.keep(removed, coupling.leaving(silent, removed))
    names = set(tensors)
    metrics["macs/ratio"] = coupling.macs(keep) / max(1, coupling.macs({}))
    metrics["params/ratio"] = coupling.parameters(keep, names) / max(1, coupling.parameters({}, names))
    return metrics


def _labels(names: Iterable[str]) -> list[str]:
    """Return the layers of stored weights, or the names of the weights where a layer has several or no name.

    >>> _labels(["fc.parametrizations.weight.original", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "weight"])
    ['fc', 'lstm.weight_ih_l0', 'lstm.weight_hh_l0', 'weight']
    """
    layers = {name: holder(name) for name in names}
    weights = Counter(layers.values())
    return [layer if layer and weights[layer] == 1 else name for name, layer in layers.items()]


def silent_units(tensors: Mapping[str, Tensor], group: Group, dead: Collection[str] = ()) -> Tensor:
    """Return `(n_units,)` bool: the units of a group whose filters are all zero, or among the `dead` tensors."""
    silent = torch.ones(group.size, dtype=torch.bool)
    for member in group.filters:
        if member.name not in dead:
            tensor = tensors[member.name]
            zero = (Channel(member.dim).units(tensor) == 0).all(dim=1).cpu()
            silent &= zero[member.index].all(dim=1)
    return silent
