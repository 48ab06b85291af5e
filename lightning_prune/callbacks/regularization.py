"""Penalties on the weights in the loss: L1, L2 and group lasso over units of any shape."""

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_prune.arguments import function, instance, nearest, number
from lightning_prune.errors import InputError
from lightning_prune.graph import LayerPatterns, by_layer, check_each, holder
from lightning_prune.pruning import Granularity, trained_weights, weight_prunables
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.penalties import Penalty, group_lasso
from lightning_prune.training import CallbackOrder, OrderedCallback, Term, add_term, refuse_sharding


class Regularization(OrderedCallback):
    """Add a penalty on the weights to every training loss, so that what is not needed becomes small.

    It makes units small, not zero: a pruner beside it, or after it, removes them. The weights are those of all layers
    but embeddings and normalizations; frozen ones stay as they are, and so do layers that the granularity cannot cut.
    `train/penalty` is logged at the end of every epoch: what all penalties add to the loss with the weights as they
    are then.

    Args:
        strength: Factor of the penalty, at least 0, or such factors by layer name pattern (`{"layer1.*": 1e-4,
            "*": 1e-5}`; the first that matches counts, unmatched layers have no penalty).
        penalty: `group_lasso` or `l2`, see `lightning_prune.pruning.penalties`, or any function of the units
            `(n_units, unit_size)` of a weight; the results of all weights are added up.
        granularity: What a unit is, by default a filter, `Channel()`; with `Element()`, `group_lasso` is the L1 norm.

    Raises:
        InputError: If an argument is out of range; when training starts, also if there is nothing to penalize, a
            pattern matches nothing, the strategy shards the weights, or the module optimizes manually.

    Reference:
        Wen et al., Learning Structured Sparsity in Deep Neural Networks, 2016, arXiv:1608.03665, equation 1: `strength`
        is its lambda_g. Scardapane et al., Group Sparse Regularization for Deep Neural Networks, 2016,
        arXiv:1607.00485, is the sum of two, `Channel(dim=1)` and `Element()`.
    """

    order = CallbackOrder.REGULARIZATION
    several = True

    def __init__(
        self,
        strength: float | Mapping[str, float],
        *,
        penalty: Penalty = group_lasso,
        granularity: Granularity | None = None,
    ) -> None:
        self.strength = check_each("strength", strength, lambda name, value: float(number(name, value, "[0, inf)")))
        self.penalty: Penalty = function("penalty", penalty, "units", group_lasso)
        self.granularity: Granularity = Channel() if granularity is None else granularity
        instance("granularity", Granularity, self.granularity, Channel)
        self._weights: list[tuple[nn.Parameter, float]] = []
        self._term: Term | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the weights and add the penalty to the module's loss."""
        refuse_sharding(trainer)
        self._weights = self._find_weights(pl_module)
        if self._weights:
            self._term = add_term(pl_module, self._penalize)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the penalty."""
        if self._weights:
            with torch.no_grad():
                # The sum is that of all callbacks of this kind, and of all processes, which have the same.
                share = self._total() / trainer.world_size
                pl_module.log("train/penalty", share, reduce_fx="sum", sync_dist=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the module."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the module."""
        self._leave()

    # The parts --------------------------------------------------------------------------------------------------------

    def _find_weights(self, pl_module: LightningModule) -> list[tuple[nn.Parameter, float]]:
        """Return the weights that have a penalty, each with its factor."""
        found = trained_weights(pl_module)
        cut, _ = weight_prunables(pl_module, self.granularity)
        layers = {name: holder(name) for prunable in cut for name in prunable.filters}
        if not layers:
            among = f" among {nearest('', found)}" if found else ""
            raise InputError(f"expected a model with trained weights that {self.granularity} can cut, got none{among}")
        if left_out := [name for name in found if name not in layers]:
            rank_zero_info(f"Regularization leaves out what {self.granularity} cannot cut: {', '.join(left_out)}")
        strengths = by_layer("strength", self.strength, layers.values(), LayerPatterns(pl_module))
        return [(found[name], strengths[layer]) for name, layer in layers.items() if strengths[layer] > 0]

    def _total(self) -> Tensor:
        """Return the penalty of all weights, in float32 where they are stored in less."""
        penalties = [
            strength * self.penalty(self.granularity.units(weight.to(torch.promote_types(weight.dtype, torch.float32))))
            for weight, strength in self._weights
        ]
        return torch.stack(penalties).sum()

    def _penalize(self, loss: Tensor) -> Tensor:
        return self._total()

    def _leave(self) -> None:
        if self._term is not None:
            self._term.remove()
        self._term, self._weights = None, []
