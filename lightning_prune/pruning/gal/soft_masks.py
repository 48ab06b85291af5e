"""Real numbers that scale channels, branches and blocks while a model trains, folded into its parameters."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.prunable_channels import PrunableChannels
from lightning_prune.slimming import BlockOrBranchKind, Coupling, Group, Member

MaskableKind = Literal["block", "branch", "channel"]
"""What one soft mask scales: a residual block, a branch of a concatenation, or a channel inside a block."""


@dataclass(frozen=True, eq=False)
class Maskable:
    """Units that can be scaled by one number each: the channels of a group, or one block or branch.

    Args:
        name: What they are called.
        gates: The parameters that scale what the units give out.
        group: All that exists for the units alone.
    """

    name: str
    gates: tuple[Member, ...]
    group: Group

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.gates[0].index)

    def masks(self, keep: Tensor, module: nn.Module) -> dict[str, Tensor]:
        """Return bool masks over all that exists for the units, by parameter name, given which stay, `(n_units,)`."""
        shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
        return PrunableChannels(self.group, shapes, Channel()).masks(keep)


def find_maskable(module: nn.Module, coupling: Coupling, kinds: Collection[MaskableKind] | None) -> list[Maskable]:
    """Return what can be masked in a module and trains, blocks and branches before groups of channels.

    Args:
        module: The module.
        coupling: Its channels.
        kinds: What to look for; None for the first of block, branch and channel that there is.

    Raises:
        InputError: If there is nothing.
    """
    found: list[Maskable] = []
    for kind in get_args(MaskableKind):
        if (kinds is None and not found) or (kinds is not None and kind in kinds):
            found += _channels(coupling) if kind == "channel" else _whole(coupling, kind)
    parameters = dict(module.named_parameters())
    trained = [one for one in found if all(parameters[gate.name].requires_grad for gate in one.gates)]
    if not trained:
        wanted = ", ".join(kinds or get_args(MaskableKind))
        raise InputError(
            f"expected a {type(module).__name__} with structures that can be masked ({wanted}) and train, found none"
        )
    return trained


def _whole(coupling: Coupling, kind: BlockOrBranchKind) -> list[Maskable]:
    """Return blocks or branches."""
    return [Maskable(one.name, one.gates, Group(one.members)) for one in coupling.blocks_and_branches[kind]]


def _channels(coupling: Coupling) -> list[Maskable]:
    """Return the channels inside blocks, with what scales them: batch norms, or else the layers that write them."""
    found = []
    for group in coupling.groups("inner"):
        scales = tuple(member for member in group.members if member.role in ("scale", "shift"))
        # Not the filters in front of a batch norm, which divides by whatever multiplies them.
        has_scale = any(member.role == "scale" for member in scales)
        gates = scales if has_scale else tuple(m for m in group.members if m.role in ("filter", "bias"))
        if group.size > 1:
            found.append(Maskable(", ".join(group.layers), gates, group))
    return found


class SoftMasks:
    """Numbers in front of units, kept in the parameters that scale these: stored is the product.

    A model so masked runs its own code at its own speed, and its weights are those that it computes with. Around each
    optimizer step the parameters are what they would be without masks, and so are their gradients, so that the
    optimizer trains both factors of the product, whatever it is.

    Args:
        module: The module.
        structures: What is scaled, `n` units in all.
    """

    def __init__(self, module: nn.Module, structures: Sequence[Maskable]) -> None:
        parameters = dict(module.named_parameters())
        self._places: dict[str, list[tuple[int, Tensor, Tensor]]] = defaultdict(list)
        start = 0
        for structure in structures:
            for gate in structure.gates:
                units = torch.arange(start, start + structure.size)[:, None].expand(gate.index.shape)
                device = parameters[gate.name].device
                self._places[gate.name].append((gate.dim, gate.index.flatten().to(device), units.flatten().to(device)))
            start += structure.size
        self._parameters = {name: parameters[name] for name in self._places}
        self.plain = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        """The parameters without the masks, by name."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that the masks are folded into."""
        return list(self._parameters.values())

    def factors(self, masks: Tensor) -> list[Tensor]:
        """Return what `masks`, `(n,)`, multiply each parameter with, of a shape that broadcasts over it."""
        result = []
        for name, parameter in self._parameters.items():
            factor = masks.new_ones([1] * parameter.ndim)
            for dim, positions, units in self._places[name]:
                ones = masks.new_ones(parameter.shape[dim]).index_put((positions,), masks[units])
                factor = factor * ones.view([-1 if other == dim else 1 for other in range(parameter.ndim)])
            result.append(factor)
        return result

    @torch.no_grad()
    def fold(self, masks: Tensor) -> None:
        """Store the product of the parameters and `masks`, `(n,)`."""
        for parameter, plain, factor in zip(self.parameters, self.plain.values(), self.factors(masks), strict=True):
            torch.mul(plain, factor.to(plain), out=parameter.data)

    def unfold(self, masks: Tensor) -> Tensor:
        """Turn parameters and gradients into those of the model without `masks`, which they have been folded with.

        Returns:
            `(n,)`, the gradient of the masks.
        """
        leaf = masks.detach().requires_grad_()
        with torch.enable_grad():
            factors = self.factors(leaf)
            products = [plain * factor for plain, factor in zip(self.plain.values(), factors, strict=True)]
        own = {i: parameter.grad for i, parameter in enumerate(self.parameters) if parameter.grad is not None}
        (gradient,) = torch.autograd.grad([products[i] for i in own], leaf, [*own.values()], allow_unused=True)
        for i, trained in own.items():
            trained.mul_(factors[i].detach())
        for parameter, plain in zip(self.parameters, self.plain.values(), strict=True):
            parameter.data.copy_(plain)
        return torch.zeros_like(masks) if gradient is None else gradient

    def stepped(self) -> None:
        """Take over the parameters as the optimizer has left them after `unfold`."""
        for parameter, plain in zip(self.parameters, self.plain.values(), strict=True):
            plain.copy_(parameter.data)

    def load_plain(self, plain: Mapping[str, Tensor]) -> None:
        """Take over parameters without masks, of the same shapes, by name."""
        for name, tensor in self.plain.items():
            tensor.copy_(plain[name])
