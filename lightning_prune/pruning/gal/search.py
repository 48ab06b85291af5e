"""The search of GAL: soft masks and weights against a discriminator, with a baseline network as the example."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from lightning_prune.errors import InputError
from lightning_prune.pruning.gal.adversary import Adversary
from lightning_prune.pruning.gal.fista import Fista
from lightning_prune.pruning.gal.mask_gradients import MaskGradients
from lightning_prune.pruning.gal.mask_layers import MaskLayers
from lightning_prune.pruning.gal.soft_masks import Maskable, SoftMasks
from lightning_prune.pruning.gal.variants import Variant
from lightning_prune.pruning.held_masks import momenta
from lightning_prune.pruning.prunable import join
from lightning_prune.pruning.quota import Quota


class AdversarialSearch:
    """Soft masks over the structures of a module that trains, from the baseline's weights to the choice.

    In each step `loss` comes first, `unfold` after the backward pass, `stepped` after the optimizer; `fold` makes the
    module ready for the next one, and `update` moves the masks every so many steps.

    Args:
        module: The module; its parameters hold the masks from now on.
        structures: What is masked, blocks and branches before groups of channels.
        variant: Of the paper, or of its code.
        alignment: Weight of the distance between the outputs.
        l1: Weight of the masks' L1 norm.
        seed: Seed of discriminator and masks.

    Reference:
        Lin et al., Towards Optimal Structured CNN Pruning via Generative Adversarial Learning, 2019, arXiv:1903.09291.
    """

    def __init__(
        self,
        module: nn.Module,
        structures: Sequence[Maskable],
        variant: Variant,
        alignment: float,
        l1: float,
        seed: int,
    ) -> None:
        self._module = module
        self.structures = structures
        """What is masked, in the order of the masks."""
        self._variant, self._alignment, self._l1 = variant, alignment, l1
        self._adversary = Adversary(variant.discriminator, variant.undecided, seed)
        self._soft = SoftMasks(module, structures)
        self._layers = MaskLayers(structures)
        initial = variant.initial(sum(self._layers.sizes), seed).to(self._soft.parameters[0].device)
        self._fista = Fista(initial, restart=variant.ahead)
        self._before = self._moved = self._fista.values
        self._gradients = MaskGradients(self._moved, averaged=variant.ahead)
        self.fold()

    @property
    def masks(self) -> Tensor:
        """`(n,)`, the masks."""
        return self._fista.values

    @property
    def _in_training(self) -> Tensor:
        return self._fista.point if self._variant.ahead else self._fista.values

    # One step ---------------------------------------------------------------------------------------------------------

    def loss(
        self, pruned: Tensor, baseline: Tensor, rate: float, average: Callable[[Iterable[nn.Parameter]], None]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Train the discriminator by one step, and return what the pruned network is to minimize.

        Args:
            pruned: `(n, classes)` outputs of the network that is pruned, with their graph.
            baseline: `(n, classes)` outputs of the baseline.
            rate: Learning rate of the discriminator.
            average: Averages the gradients of parameters over processes.

        Returns:
            A scalar, and what there is to log, scalars by name: its terms `adversarial` and `alignment`, the weighted
            `l1` norm, and `discriminator` and `discriminator_accuracy`, the discriminator's own loss and accuracy.
        """
        with torch.autocast(pruned.device.type, enabled=False):
            dtype = torch.promote_types(pruned.dtype, torch.float32)
            pruned, baseline = pruned.to(dtype), baseline.to(dtype)
            judged, accuracy = self._adversary.train(pruned, baseline, rate, average)
            adversarial = self._adversary.loss(pruned)
            # The code's mean over samples and classes, to which its weights and learning rates belong; the paper's
            # half of the sum over classes is `classes / 2` times as much, and lets short searches diverge.
            alignment = self._alignment * F.mse_loss(pruned, baseline)
        l1 = self._l1 * self.masks.abs().sum()
        terms = {"adversarial": adversarial, "alignment": alignment, "l1": l1}
        return adversarial + alignment, {**terms, "discriminator": judged, "discriminator_accuracy": accuracy}

    def unfold(self) -> None:
        """Put the parameters without masks into the module, and their gradients; note those of the masks."""
        self._gradients.note(self._soft.unfold(self._in_training))

    def stepped(self) -> None:
        """Take over the parameters that an optimizer has really changed, and count the gradients of the masks."""
        if self._gradients.confirm():
            self._soft.stepped()

    def fold(self) -> None:
        """Put the masks back into the module, for training."""
        self._gradients.drop()
        self._soft.fold(self._in_training)

    def fold_masks(self) -> None:
        """Put the masks themselves into the module, for everything else: training may look ahead of them."""
        self._gradients.drop()
        self._soft.fold(self.masks)

    # The masks --------------------------------------------------------------------------------------------------------

    def update(self, rate: float, quota: Quota | None = None, pressure: float = 1.0) -> None:
        """Move the masks by the gradients since the last update; no layer loses all of its channels.

        Args:
            rate: Step size.
            quota: How many of all masks the L1 norm takes to zero, those that are lowest at the time (the trimmed
                lasso: Bertsimas et al., 2017, arXiv:1708.04527); None for as many as it can.
            pressure: What multiplies the weight of the L1 norm.

        Raises:
            InputError: If the search has diverged, or the layers cannot lose so many.
        """
        gradient = self._gradients.mean()
        if gradient is None:
            return
        l1: float | Tensor = pressure * self._l1
        if quota is not None:
            l1 = l1 * self._layers.lowest(self._fista.point, quota)
        self._before = self.masks
        if not gradient.isfinite().all():
            raise InputError(
                "expected a search with finite gradients, got NaN or infinity: it has diverged; lower the learning "
                "rate of the module's optimizer, or the weight of the alignment"
            )
        if not self._variant.ahead:
            gradient = gradient + l1 * self._before.sign()
        self._moved = self._fista.step(gradient, rate, l1)
        self._gradients.begin_anew()
        self._fista.keep(self._layers.last(self._moved, self.masks), self._before.abs())
        self.fold()

    def reached(self, quota: Quota) -> bool:
        """Return whether as many of all masks are at zero as a quota takes."""
        return int((self.masks == 0).sum()) >= quota.number(len(self.masks))

    def settle(self, quota: Quota | None, optimizers: Iterable[Optimizer] = ()) -> list[Tensor]:
        """Fold the masks of what stays into the module for good, and return what goes.

        Args:
            quota: How many of all units go, those with the lowest masks; None for those at zero.
            optimizers: What they know of the parameters is scaled as these are.

        Returns:
            For each structure `(n_units,)` bool, True = pruned.

        Raises:
            InputError: If the layers cannot lose so many.
        """
        pruned = self.masks == 0
        if quota is not None:
            # What the masks would be without the bound at zero tells those apart that have reached it together.
            pruned = self._layers.lowest(self._moved, quota)
            self._fista.keep((self.masks == 0) & ~pruned, self._before.abs())
        self._fista.keep(pruned, torch.zeros_like(self.masks))
        self.fold_masks()
        parameters, factors = self._soft.parameters, self._soft.factors(self.masks)
        for averages, factor in zip(momenta(optimizers, parameters), factors, strict=True):
            for average in averages:  # the optimizer's view of a product is that of its factor, scaled
                average.mul_(factor)
        return self._layers.by_structure(pruned)

    def hard_masks(self, removed: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return bool masks over all that exists for what is `removed`, `(n_units,)` of each structure, by name."""
        masks: dict[str, Tensor] = {}
        for structure, gone in zip(self.structures, removed, strict=True):
            join(masks, structure.masks(~gone, self._module))
        return masks

    def census(self) -> dict[str, float]:
        """Return how the masks lie, by name: the share at zero, how many of each structure are not, a histogram."""
        return self._layers.census(self.masks)

    # State ------------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that the search needs to go on, on the CPU."""
        return {
            "fista": self._fista.state_dict(),
            "plain": {name: tensor.cpu() for name, tensor in self._soft.plain.items()},
            "gradient": self._gradients.state(),
            "last": (self._before.cpu(), self._moved.cpu()),
            "adversary": self._adversary.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another search was."""
        self._fista.load_state_dict(state["fista"])
        self._soft.load_plain(state["plain"])
        device = self._moved.device
        self._gradients.load(state["gradient"])
        self._before, self._moved = (saved.to(device) for saved in state["last"])
        self._adversary.load_state_dict(state["adversary"], device)
        self.fold()
