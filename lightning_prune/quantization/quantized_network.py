"""A network whose layers compute with rounded numbers."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.graph import Function, Interceptor, interceptor_of
from lightning_prune.quantization.integer_layers import FrozenNorm, Integers, as_integers
from lightning_prune.quantization.quantizers.affine import AffineActivation, AffineWeight
from lightning_prune.quantization.quantizers.quantizer import Activation, Layer
from lightning_prune.quantization.rounding_sites import LayerSite, Placement

NAME = "_quantization"
_LEAST_SCALE = 1e-4
"""Of a batch norm that is folded into a weight: a channel that it turns off must not divide by zero."""


class Quantization(Interceptor):
    """The layers of a network that compute with rounded numbers, and the tensors that are rounded between them.

    A submodule of the network, so that what is learned is trained by its optimizer and moves with it, but no part of
    its `state_dict`, which is that of the plain network; `own_state` is this one's.

    Args:
        placement: What is quantized.
        layers: What computes each layer, by its name.
        tensors: What rounds each tensor, by its name.
    """

    def __init__(self, placement: Placement, layers: Mapping[str, Layer], tensors: Mapping[str, Activation]) -> None:
        super().__init__()
        self.sites = {site.name: site for site in placement.layers if site.name in layers}
        self.tensor_sites = {site.name: site for site in placement.tensors if site.name in tensors}
        self.left = placement.left
        self.counts = placement.counts
        self.layers = nn.ModuleDict({_key(name): layer for name, layer in layers.items()})
        self.tensors = nn.ModuleDict({_key(name): tensor for name, tensor in tensors.items()})
        self.skipped: set[str] = set()
        """Calls that return their first argument as it is."""
        self._layer_of = {site.call: site for site in self.sites.values()}
        self._norm_of = {site.norm.call: site for site in self.sites.values() if site.norm is not None}
        self._tensor_of = {call: _key(site.name) for site in self.tensor_sites.values() for call in site.calls}
        self.register_load_state_dict_post_hook(_not_missing)  # type: ignore[no-untyped-call]

    def call(self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with rounded numbers if it is that of a layer, and round what comes out if that is wanted."""
        site, normed = self._layer_of.get(name), self._norm_of.get(name)
        if name in self.skipped or (normed is not None and self._folded(normed)):
            output = args[0] if args else kwargs["input"]
        elif site is None:
            output = function(*args, **kwargs)
        else:
            rest = dict(kwargs)
            given = [*args, *(rest.pop(key) for key in ("input", "weight")[len(args) :])]
            output = self._compute(site, function, *given, **rest)
        tensor = self._tensor_of.get(name)
        return output if tensor is None else self.tensors[tensor](output)

    def finish(self, counts: Mapping[str, int]) -> None:
        """Refuse a forward pass that does not make the calls that were traced.

        Raises:
            InputError: If it makes others.
        """
        for of_function, expected in self.counts.items():
            if counts.get(of_function, 0) != expected:
                path, _, function = of_function.partition("/")
                raise InputError(
                    f"expected {expected} calls of {function} in {path or type(self.model).__name__} as in evaluation, "
                    f"got {counts.get(of_function, 0)}: nobody can tell them apart; give what only trains a module of "
                    "its own, with its own activation function"
                )

    def _compute(
        self, site: LayerSite, function: Function, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Return what a layer computes, in evaluation as integers do it, with the same rounding of the bias."""
        layer = self.layer(site.name)
        if not self._folded(site):
            return layer(function, self.norm_scale(site), x, weight, *args, **kwargs)
        kwargs.pop("bias", None)
        read = x if layer.input is None else layer.input(x)
        held = [number if number is None else number.to(x.dtype) for number in self.integers(site).numbers()]
        return function(read, *held, *args[1:], **kwargs)

    def _folded(self, site: LayerSite) -> bool:
        """Return whether a layer computes with its integers now, in which the batch norm behind it is included.

        It does where nothing is learned: the int32 rounding of biases moves one number in a thousand to the next level,
        which after twenty layers is another class for one image in two hundred.
        """
        if self.training or torch.is_grad_enabled():
            return False
        layer, reads = self.layer(site.name), self.reads(site)
        of_integers = isinstance(layer, Layer) and isinstance(layer.weight, AffineWeight)
        if not of_integers or not isinstance(reads, AffineActivation):
            return False
        norm = None if site.norm is None else self.model.get_submodule(site.norm.call.partition("/")[0])
        return reads.quantizing and (norm is None or not norm.training)

    def reads(self, site: LayerSite) -> Activation | None:
        """Return what rounds the tensor that a layer reads; None if nothing does."""
        if site.reads is None:
            return self.layer(site.name).input
        return self.tensor(site.reads) if site.reads in self.tensor_sites else None

    def integers(self, site: LayerSite) -> Integers:
        """Return the weight and the bias with which a layer runs in integers, the batch norm behind it folded in.

        Raises:
            InputError: If it is not quantized to integers.
        """
        layer, reads = self.layer(site.name), self.reads(site)
        if not isinstance(layer.weight, AffineWeight) or not isinstance(reads, AffineActivation):
            raise InputError(
                f"expected integer weights and inputs of {site.name}, as those of quantizer affine with at most 8 "
                f"bits, got {type(layer.weight).__name__} that reads "
                f"{'floats' if reads is None else type(reads).__name__}; export format=onnx instead"
            )
        weight, folded, norm = self.stored(site.weight).detach().float(), self.norm_scale(site), self.norm(site)
        codes, scale = layer.weight.codes(weight if folded is None else weight * folded)
        return as_integers(
            codes,
            scale,
            site.axis,
            reads.grid()[0],
            bias=None if site.bias is None else self.stored(site.bias),
            norm=None if norm is None else FrozenNorm.of(*norm),
            folded=None if folded is None else folded.flatten(),
        )

    def layer(self, name: str) -> Layer:
        """Return what computes a layer."""
        return self.layers[_key(name)]  # type: ignore[return-value]

    def tensor(self, name: str) -> Activation:
        """Return what rounds a tensor."""
        return self.tensors[_key(name)]  # type: ignore[return-value]

    def replace(self, layers: Mapping[str, nn.Module], tensors: Mapping[str, nn.Module]) -> None:
        """Put others in the place of what computes layers and rounds tensors, by their names."""
        self.layers.update({_key(name): layer for name, layer in layers.items()})
        self.tensors.update({_key(name): tensor for name, tensor in tensors.items()})

    def activations(self) -> dict[str, Activation]:
        """Return all that round tensors, those that belong to one layer by its name."""
        own = {name: self.layer(name).input for name in self.sites}
        return {
            **{name: activation for name, activation in own.items() if activation is not None},
            **{name: self.tensor(name) for name in self.tensor_sites},
        }

    @property
    def quantizing(self) -> bool:
        """Whether tensors are rounded, not only weights."""
        return any(activation.quantizing for activation in self.activations().values())

    @quantizing.setter
    def quantizing(self, value: bool) -> None:
        for activation in self.activations().values():
            activation.quantizing = value

    def limits(self) -> dict[str, Tensor]:
        """Return the largest magnitude that each rounded tensor can have, where that is found in training."""
        found = {name: activation.limit() for name, activation in self.activations().items()}
        return {name: limit for name, limit in found.items() if limit is not None}

    def check(self) -> None:
        """Refuse ranges and levels with which nothing can be computed.

        Raises:
            InputError: If one is not a number, or nothing was ever seen of it.
        """
        for site in self.sites.values():
            if not self.stored(site.weight).isfinite().all():
                raise InputError(f"expected finite weights in {site.name}, got NaN or inf: training has diverged")
        for name, limit in self.limits().items():
            if not limit.isfinite():
                seen = "NaN: training has diverged" if limit.isnan() else "none: no finite number came there"
                raise InputError(f"expected a range of the numbers in {name}, got {seen}")

    def round_again(self) -> None:
        """Round also the outputs that are rounded if their inputs are, as inference engines need it to be said."""
        for site in self.tensor_sites.values():
            self._tensor_of.update(dict.fromkeys(site.again, _key(site.name)))

    def norm_scale(self, site: LayerSite) -> Tensor | None:
        """Return what the batch norm behind a layer multiplies by, as `Layer.rounded` takes it; None if it does not."""
        norm = self.norm(site) if self.layer(site.name).folds else None
        if norm is None:
            return None
        weight, _, _, variance, eps = norm
        scale = (weight.detach() if weight is not None else 1.0) / (variance + eps).sqrt()
        scale = torch.where(scale < 0, scale.clamp(max=-_LEAST_SCALE), scale.clamp(min=_LEAST_SCALE))
        shape = [1] * self.stored(site.weight).ndim
        shape[site.axis] = -1
        return scale.reshape(shape)

    def norm(self, site: LayerSite) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor, float] | None:
        """Return the scale, the shift, the running mean and variance and eps of the batch norm behind a layer."""
        if site.norm is None:
            return None
        scale, shift = (None if name is None else self.stored(name) for name in (site.norm.weight, site.norm.bias))
        return scale, shift, self.stored(site.norm.mean), self.stored(site.norm.variance), site.norm.eps

    def stored(self, name: str) -> Tensor:
        """Return a tensor of the network, as it is in use."""
        return tensor_in_use(self.model, name)

    # State ------------------------------------------------------------------------------------------------------------

    def own_state(self) -> dict[str, Tensor]:
        """Return the ranges, step sizes and levels, by name."""
        parts = {"layers": self.layers, "tensors": self.tensors}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the state of another quantization of the same network.

        Raises:
            InputError: If it is that of another one.
        """
        own = self.own_state()
        if own.keys() != state.keys():
            odd = min(own.keys() ^ state.keys())
            where = "the checkpoint" if odd in state else "this quantization"
            raise InputError(
                f"expected the state of a network that is quantized in the same way; only {where} has {odd}"
            )
        for name, part in {"layers.": self.layers, "tensors.": self.tensors}.items():
            part.load_state_dict({key.removeprefix(name): state[key] for key in state if key.startswith(name)})

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return nothing: what a network stores does not depend on how it is rounded."""
        destination = kwargs.get("destination")
        return {} if destination is None else cast(dict[str, Any], destination)


def _not_missing(module: nn.Module, keys: Any) -> None:
    """Do not ask a plain network's state for what is not in it."""
    keys.missing_keys[:] = [key for key in keys.missing_keys if f"{NAME}." not in f"{key}."]


def _key(name: str) -> str:
    """Return the name of a site as the name of a submodule.

    >>> _key("layer1.0.relu/relu/1")
    'layer1/0/relu/relu/1'
    """
    return name.replace(".", "/")


def tensor_in_use(model: nn.Module, name: str) -> Tensor:
    """Return a stored tensor of a network, or what a parametrization makes in its place."""
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    return tensor


def quantization_of(model: nn.Module) -> Quantization | None:
    """Return how a network is quantized; None if it is not."""
    found = interceptor_of(model)
    return found if isinstance(found, Quantization) else None
