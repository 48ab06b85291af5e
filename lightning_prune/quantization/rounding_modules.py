"""What rounds in a quantized network: a module for each layer and for each tensor between them, and their state."""

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.quantizer import Activation, Layer


class RoundingModules(nn.Module):
    """The modules that compute layers with rounded weights, and those that round tensors, by the names of both.

    Args:
        layers: What computes each layer, in the order in which they run.
        tensors: What rounds each tensor between them.
    """

    def __init__(self, layers: Mapping[str, Layer], tensors: Mapping[str, Activation]) -> None:
        super().__init__()
        self.layer_names, self.tensor_names = dict.fromkeys(layers), dict.fromkeys(tensors)  # in order
        self.layers = nn.ModuleDict({module_key(name): layer for name, layer in layers.items()})
        self.tensors = nn.ModuleDict({module_key(name): tensor for name, tensor in tensors.items()})

    def layer(self, name: str) -> Layer:
        """Return what computes a layer."""
        return self.layers[module_key(name)]  # type: ignore[return-value]

    def tensor(self, name: str) -> Activation:
        """Return what rounds a tensor."""
        return self.tensors[module_key(name)]  # type: ignore[return-value]

    def replace(self, layers: Mapping[str, nn.Module], tensors: Mapping[str, nn.Module]) -> None:
        """Put others in the place of what computes layers and rounds tensors, by their names."""
        self.layers.update({module_key(name): layer for name, layer in layers.items()})
        self.tensors.update({module_key(name): tensor for name, tensor in tensors.items()})

    def activations(self) -> dict[str, Activation]:
        """Return all that round tensors, those that belong to one layer by its name."""
        own = {name: self.layer(name).input for name in self.layer_names}
        return {
            **{name: activation for name, activation in own.items() if activation is not None},
            **{name: self.tensor(name) for name in self.tensor_names},
        }

    @property
    def observing(self) -> bool:
        """Whether ranges or step sizes are taken from what comes."""
        return any(activation.observing for activation in self.activations().values())

    @observing.setter
    def observing(self, value: bool) -> None:
        for activation in self.activations().values():
            activation.observing = value

    @property
    def quantizing(self) -> bool:
        """Whether tensors are rounded, not only weights."""
        return any(activation.quantizing for activation in self.activations().values())

    @quantizing.setter
    def quantizing(self, value: bool) -> None:
        for activation in self.activations().values():
            activation.quantizing = value

    def limits(self) -> dict[str, Tensor]:
        """Return the largest magnitude that each rounded tensor can have, `()`, where that is found in training."""
        found = {name: activation.limit() for name, activation in self.activations().items()}
        return {name: limit for name, limit in found.items() if limit is not None}

    def check_limits(self) -> None:
        """Refuse ranges and levels with which nothing can be computed.

        Raises:
            InputError: If one is not a number, or nothing was ever seen of it.
        """
        for name, limit in self.limits().items():
            if not limit.isfinite():
                seen = "NaN: training has diverged" if limit.isnan() else "none: no finite number came there"
                raise InputError(f"expected a range of the numbers in {name}, got {seen}")

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the ranges, step sizes and levels in the state of another quantization of the same network.

        Args:
            state: What `state_dict` returns: tensors of any shape by name.

        Raises:
            InputError: If it is that of another one.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            odd = min(own.keys() ^ state.keys())
            where = "the checkpoint" if odd in state else "this quantization"
            raise InputError(
                f"expected the state of a network that is quantized in the same way; only {where} has {odd}"
            )
        self.load_state_dict(dict(state))


def module_key(name: str) -> str:
    """Return the name of a layer or of a tensor as the name of a submodule.

    >>> module_key("layer1.0.relu/relu/1")
    'layer1/0/relu/relu/1'
    """
    return name.replace(".", "/")
