"""Network slimming: batch-norm scales that an L1 penalty makes small tell which channels to remove."""

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_prune.arguments import flag, number
from lightning_prune.callbacks.timed_pruner import TimedPruner
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.pruning import Competition, Goal, Prunable, Sparsity
from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.slimming import Residual, TracedModel
from lightning_prune.training import Moment

log = logging.getLogger(__name__)

SMALL = 0.01
"""Absolute scale under which a channel counts as small in the log; batch norm's own initial scale is 1."""


class NetworkSlimming(TimedPruner):
    """Push batch-norm scales towards zero while training, remove the channels with the smallest, and train on.

    Until `prune_at` all weights train, with an L1 penalty on the scales. Then, once, the channels of all layers compete
    and those with the smallest scales go: their filters, biases, scales and shifts are held at zero while the others
    train without the penalty, so that `slim` can remove them without changing any output.

    Penalized are the scales that compete, and no others: in a VGG those of all batch norms, as in the paper; with
    `residual="inner"`, those between two convolutions of a residual block. Scales are not initialized here: the
    authors' models begin with 0.5 in place of PyTorch's 1. How far they get depends on the length of the run: a scale
    that the loss does not hold falls by about `strength * lr / (1 - momentum)` a step, with `ista` by `strength * lr`.
    At the end of every epoch `slimming/mean_scale`, the mean of the absolute scales, and `slimming/small_scales`, the
    fraction of them under 0.01, are logged.

    Args:
        sparsity: Fraction of the channels of all layers together that go, in [0, 1), or such fractions by layer name
            pattern (the first that matches counts, unmatched layers keep all); layers with the same fraction compete.
        strength: Factor of the L1 norm in the loss, at least 0.
        prune_at: When the channels go, in optimizer steps, or as a fraction of the run if it is a float.
        ista: Set scales to exactly zero by proximal gradient steps instead of adding the penalty to the loss. Of what
            the optimizer does to a scale only its learning rate stays: no momentum, no weight decay. The cost of each
            layer, which the paper multiplies the penalty with, is 1 here; its own are 0.7 to 1.3 in ResNet-20.
        residual: Treatment of residual streams: `"inner"` leaves the batch norms in front of additions alone,
            `"coupled"` ties them; see `lightning_prune.slimming.channels.groups.Residual`.
        round_to: What the width of a layer that loses channels is a multiple of, 8 or 16 say, so that the slim model is
            fast; see `lightning_prune.pruning.granularities.channel.Channel`. It is rounded after all have competed.
        min_width: Channels that each layer keeps at least.
        floor: Fraction of its channels that every layer keeps, in [0, 1), at least one.
        example_input: What `forward` takes, a tensor or a tuple; by default the module's `example_input_array`, or else
            the first training batch.

    Raises:
        InputError: If an argument is out of range; when training starts, also if no layer has batch-norm scales that
            train, too many channels would have to go, `prune_at` lies outside the run, the strategy shards the weights,
            or, without `ista`, the module optimizes manually.

    Reference:
        Liu et al., Learning Efficient Convolutional Networks through Network Slimming, 2017, arXiv:1708.06519; Ye et
        al., Rethinking the Smaller-Norm-Less-Informative Assumption, 2018, arXiv:1802.00124, algorithm 1, is `ista`.
    """

    end_name = "prune_at"

    def __init__(
        self,
        sparsity: Sparsity | None = None,
        *,
        strength: float = 1e-4,
        prune_at: Moment = 0.5,
        ista: bool = False,
        residual: Residual = "inner",
        round_to: int = 1,
        min_width: int = 1,
        floor: float = 0.01,
        example_input: ExampleInput | None = None,
    ) -> None:
        channels = Channel(residual=residual, round_to=round_to, min_width=min_width)
        self.goal = Goal(channels, sparsity, "global", floor)
        self.strength = float(number("strength", strength, "[0, inf)"))
        self.ista = flag("ista", ista)
        self.residual = residual
        super().__init__(channels, example_input, begin=prune_at, end=prune_at, every=1)

    def _forget(self) -> None:
        super()._forget()
        self._competition: Competition | None = None
        self._scales: list[nn.Parameter] = []
        self._before: dict[Tensor, Tensor] = {}

    # The run ----------------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot work, find what can be pruned, and hook into the optimizers."""
        super().on_fit_start(trainer, pl_module)
        if self.ista:
            self._hooks += [optimizer.register_step_pre_hook(self._before_step) for optimizer in trainer.optimizers]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how small the scales are."""
        if self._scales:
            sizes = torch.cat([scale.detach().abs() for scale in self._scales])
            small = (sizes < SMALL).float().mean()
            pl_module.log_dict({"slimming/mean_scale": sizes.mean(), "slimming/small_scales": small})

    # The parts --------------------------------------------------------------------------------------------------------

    def _plan(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super()._plan(trainer, pl_module)
        if not self.ista:
            self._enter_loss(pl_module, self._penalize)

    def _find(self, pl_module: LightningModule, traced: TracedModel | None) -> bool:
        found = self.goal.prunables(pl_module, traced)
        if found is None:
            return False
        scales = {prunable: _scales(pl_module, prunable) for prunable in found}
        for prunable in (prunable for prunable, own in scales.items() if not own):
            log.info("%s: not pruned, no batch-norm scales that train", ", ".join(prunable.layers))
        scaled = [prunable for prunable, own in scales.items() if own]
        if not scaled:
            raise InputError(
                "expected a model with batch norms behind convolutions, whose scales train, found none that can be "
                f"pruned with residual={self.residual!r}; use another strategy"
            )
        self._competition = self.goal.settle(pl_module, scaled)
        self._competition.check()
        self._scales = list(dict.fromkeys(own for one in self._competition.prunables for own in scales[one]))
        return True

    @torch.no_grad()
    def _make_choice(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        assert self._competition is not None
        weights = {name: weight.detach() for name, weight in pl_module.named_parameters()}
        self._hold(trainer, pl_module, self._competition.choose(BatchNormScale(), weights))

    def _penalize(self, loss: Tensor) -> Tensor | None:
        if self.is_final or not self._scales:
            return None
        return self.strength * torch.cat([scale.abs() for scale in self._scales]).sum()

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._before = {} if self.is_final else {scale: scale.detach().clone() for scale in self._scales}

    @torch.no_grad()
    def _after_step(self, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Put a proximal gradient step in the place of what the optimizer did to the scales."""
        super()._after_step(pl_module, optimizer)
        if not self._before:
            return
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            for scale in group["params"]:
                if scale in self._before and scale.grad is not None:
                    moved = self._before[scale] - rate * scale.grad
                    scale.copy_(F.softshrink(moved, rate * self.strength))
        self._before = {}


def _scales(module: LightningModule, prunable: Prunable) -> list[nn.Parameter]:
    """Return the scales by which batch norms multiply channels; none if one of them is frozen."""
    members = () if prunable.group is None else prunable.group.members
    scales = [module.get_parameter(member.name) for member in members if member.role == "scale"]
    return scales if all(scale.requires_grad for scale in scales) else []
