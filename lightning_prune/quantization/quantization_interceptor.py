"""A network whose calls compute with rounded numbers."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.graph import Function, Interceptor, interceptor_of
from lightning_prune.quantization.integer_arithmetic import NormTensors, computes_in_integers, integers_of, norm_scale
from lightning_prune.quantization.integer_layers import IntegerWeights
from lightning_prune.quantization.quantized_calls import LayerCall, QuantizerPlacement
from lightning_prune.quantization.quantizers.quantizer import Activation
from lightning_prune.quantization.rounding_modules import RoundingModules, module_key

NAME = "_quantization"


class QuantizationInterceptor(Interceptor):
    """Makes the calls of a network that are layers with rounded numbers, and rounds what others return.

    A submodule of the network, so that what is learned is trained by its optimizer and moves with it, but no part of
    its `state_dict`, which is that of the plain network; that of `rounding` is this one's.

    Args:
        placement: Which calls are quantized.
        rounding: What computes each layer of it, and rounds some or all of its tensors.
    """

    def __init__(self, placement: QuantizerPlacement, rounding: RoundingModules) -> None:
        super().__init__()
        self.rounding = rounding
        self.layer_calls = {layer.name: layer for layer in placement.layers}
        self.rounded_tensors = [tensor for tensor in placement.tensors if tensor.name in rounding.tensor_names]
        self.left = placement.left
        self.counts = placement.counts
        self.skipped: set[str] = set()
        """Calls that return their first argument as it is."""
        self._layer_of = {layer.call: layer for layer in placement.layers}
        self._norm_of = {layer.norm.call: layer for layer in placement.layers if layer.norm is not None}
        self._rounder_of = {call: module_key(tensor.name) for tensor in self.rounded_tensors for call in tensor.calls}
        self.register_load_state_dict_post_hook(_not_missing)  # type: ignore[no-untyped-call]

    def call(self, name: str, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make a call with rounded numbers if it is that of a layer, and round what comes out if that is wanted."""
        layer, normed = self._layer_of.get(name), self._norm_of.get(name)
        if name in self.skipped or (normed is not None and self._folded(normed)):
            output = args[0] if args else kwargs["input"]
        elif layer is None:
            output = function(*args, **kwargs)
        else:
            rest = dict(kwargs)
            given = [*args, *(rest.pop(key) for key in ("input", "weight")[len(args) :])]
            output = self._compute(layer, function, *given, **rest)
        rounder = self._rounder_of.get(name)
        return output if rounder is None else self.rounding.tensors[rounder](output)

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
        self, call: LayerCall, function: Function, x: Tensor, weight: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Return what a layer computes, in evaluation as integers do it, with the same rounding of the bias."""
        layer = self.rounding.layer(call.name)
        if not self._folded(call):
            return layer(function, self.norm_scale(call), x, weight, *args, **kwargs)
        kwargs.pop("bias", None)
        read = x if layer.input is None else layer.input(x)
        held = [number if number is None else number.to(x.dtype) for number in self.integers(call).numbers()]
        return function(read, *held, *args[1:], **kwargs)

    def _folded(self, call: LayerCall) -> bool:
        """Return whether a layer computes with its integers now, in which the batch norm behind it is included.

        It does where nothing is learned: the int32 rounding of biases moves one number in a thousand to the next level,
        which after twenty layers is another class for one image in two hundred.
        """
        if self.training or torch.is_grad_enabled():
            return False
        if not computes_in_integers(self.rounding.layer(call.name), self.reads(call)):
            return False
        norm = None if call.norm is None else self.model.get_submodule(call.norm.call.partition("/")[0])
        return norm is None or not norm.training

    def reads(self, call: LayerCall) -> Activation | None:
        """Return what rounds the tensor that a layer reads; None if nothing does."""
        if call.reads is None:
            return self.rounding.layer(call.name).input
        return self.rounding.tensor(call.reads) if call.reads in self.rounding.tensor_names else None

    def integers(self, call: LayerCall) -> IntegerWeights:
        """Return the weight and the bias with which a layer runs in integers; see `integers_of`.

        Raises:
            InputError: If it is not quantized to integers.
        """
        bias = None if call.bias is None else self.stored(call.bias)
        layer, weight = self.rounding.layer(call.name), self.stored(call.weight)
        return integers_of(call.name, layer, self.reads(call), weight, call.axis, bias, self._norm(call))

    def norm_scale(self, call: LayerCall) -> Tensor | None:
        """Return what the batch norm behind a layer multiplies by, in the shape that `Layer.rounded` takes, or None.

        That is `(1, ..., n_outputs, ..., 1)`.
        """
        norm = self._norm(call) if self.rounding.layer(call.name).folds else None
        return None if norm is None else norm_scale(norm, self.stored(call.weight).ndim, call.axis)

    def _norm(self, call: LayerCall) -> NormTensors | None:
        norm = call.norm
        if norm is None:
            return None
        weight, bias = (None if name is None else self.stored(name) for name in (norm.weight, norm.bias))
        return NormTensors(weight, bias, self.stored(norm.mean), self.stored(norm.variance), norm.eps)

    def check(self) -> None:
        """Refuse weights, ranges and levels with which nothing can be computed.

        Raises:
            InputError: If one is not a number, or nothing was ever seen of a range.
        """
        for call in self.layer_calls.values():
            if not self.stored(call.weight).isfinite().all():
                raise InputError(f"expected finite weights in {call.name}, got NaN or inf: training has diverged")
        self.rounding.check_limits()

    def partly_zero(self) -> str | None:
        """Return the first layer in which a filter has zeros, but is not all zero; None without one."""
        for call in self.layer_calls.values():
            zero = (self.stored(call.weight) == 0).movedim(call.axis, 0).flatten(1)
            if bool((zero.any(1) & ~zero.all(1)).any()):
                return call.name
        return None

    def round_again(self) -> None:
        """Round also the outputs that are rounded if their inputs are, as inference engines need it to be said."""
        for tensor in self.rounded_tensors:
            self._rounder_of.update(dict.fromkeys(tensor.again, module_key(tensor.name)))

    def stored(self, name: str) -> Tensor:
        """Return a stored tensor of the network, of any shape, as it is in use."""
        return tensor_in_use(self.model, name)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return nothing: what a network stores does not depend on how it is rounded."""
        destination = kwargs.get("destination")
        return {} if destination is None else cast(dict[str, Any], destination)


def _not_missing(module: nn.Module, keys: Any) -> None:
    """Do not ask a plain network's state for what is not in it."""
    keys.missing_keys[:] = [key for key in keys.missing_keys if f"{NAME}." not in f"{key}."]


def tensor_in_use(model: nn.Module, name: str) -> Tensor:
    """Return a stored tensor of a network, or what a parametrization makes in its place, of its shape."""
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), attribute)
    return tensor


def quantization_of(model: nn.Module) -> QuantizationInterceptor | None:
    """Return what lets a network compute with rounded numbers; None if nothing does."""
    found = interceptor_of(model)
    return found if isinstance(found, QuantizationInterceptor) else None
