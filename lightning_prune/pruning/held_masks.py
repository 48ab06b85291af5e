"""Masks that stay in force: what they remove is zero after every step."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_prune.errors import InputError


class HeldMasks:
    """Masks over the parameters of a module.

    Args:
        module: The module.
        masks: bool masks by parameter name, True = kept, that broadcast over the parameters.

    Raises:
        InputError: If a mask does not fit.
    """

    def __init__(self, module: nn.Module, masks: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        for name, mask in masks.items():
            fits = name in parameters and mask.ndim == parameters[name].ndim
            if not fits or any(m not in (1, s) for m, s in zip(mask.shape, parameters[name].shape, strict=True)):
                raise InputError(f"expected masks for {type(module).__name__}, got one of {name} that does not fit")
        self._weights = {name: parameters[name] for name in masks}
        # A product with a mask in the parameter's number format is several times as fast as one with bool.
        self.factors = {name: mask.to(parameters[name]) for name, mask in masks.items()}

    def replace(self, masks: Mapping[str, Tensor]) -> bool:
        """Take other masks over the same parameters, of the same shapes; return False if they are not such."""
        if {name: mask.shape for name, mask in masks.items()} != {name: m.shape for name, m in self.factors.items()}:
            return False
        for name, mask in masks.items():
            self.factors[name].copy_(mask)
        return True

    def belong_to(self, module: nn.Module) -> bool:
        """Return whether the masks lie over parameters of this very module."""
        parameters = dict(module.named_parameters())
        return all(parameters.get(name) is weight for name, weight in self._weights.items())

    @property
    def masks(self) -> dict[str, Tensor]:
        """The bool masks by parameter name, True = kept, of any shape that broadcasts over the parameter."""
        return {name: mask.bool() for name, mask in self.factors.items()}

    def enforce(self, optimizers: Iterable[Optimizer] = ()) -> None:
        """Zero what the masks remove, in the parameters and in the running averages of the optimizers."""
        averages = momenta(optimizers, self._weights.values())
        pairs = [
            (tensor, mask)
            for weight, mask, states in zip(self._weights.values(), self.factors.values(), averages, strict=True)
            for tensor in (weight.data, *states)
        ]
        apply_masks([tensor for tensor, _ in pairs], [mask for _, mask in pairs])


@torch.no_grad()
def apply_masks(tensors: Iterable[Tensor], masks: Iterable[Tensor]) -> None:
    """Zero, in place, what the masks remove; what is not finite stays visible.

    Args:
        tensors: Tensors of any shapes.
        masks: One for each, of its number format, 1 = kept, of a shape that broadcasts over it.
    """
    tensors = list(tensors)
    if tensors:
        torch._foreach_mul_(tensors, list(masks))


def momenta(optimizers: Iterable[Optimizer], parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Return, for each parameter, of any shape, the optimizers' running averages of the same shape."""
    optimizers = list(optimizers)
    return [
        [
            state
            for optimizer in optimizers
            for state in optimizer.state.get(parameter, {}).values()
            if isinstance(state, Tensor) and state.shape == parameter.shape and state.ndim > 0
        ]
        for parameter in parameters
    ]


def nonzeros(module: nn.Module) -> dict[str, Tensor]:
    """Return bool masks, True = not zero, by the name of every parameter that has zeros, and in its shape."""
    masks = {name: weight.detach() != 0 for name, weight in module.named_parameters()}
    return {name: mask for name, mask in masks.items() if not mask.all()}
