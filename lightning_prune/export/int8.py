"""From a network that was trained with rounded numbers to one that holds integers; and without training."""

import copy
from collections.abc import Iterable
from typing import TypeVar

from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, as_arguments, evaluating
from lightning_prune.quantization import (
    FrozenActivation,
    IntegerLayer,
    QuantizationInterceptor,
    quantization_of,
    quantize,
)
from lightning_prune.quantization.quantizers.affine import Affine, AffineActivation

Model = TypeVar("Model", bound=nn.Module)


def integer_network(model: Model) -> Model:
    """Return a copy of a quantized network whose layers hold int8 weights and int32 biases, for `write_onnx`.

    It computes what the quantized network does in eval mode without gradients, to the bit: batch norms are folded into
    the scales of the weights, whose codes are those of training.

    Args:
        model: What `QuantizationAwareTraining` or `calibrated` leaves. It is not changed.

    Raises:
        InputError: If it is not quantized, not in a way that integers can represent, or has diverged.
    """
    twin = copy.deepcopy(model).cpu().eval()
    quantization = quantization_of(twin)
    if quantization is None:
        raise InputError(
            f"expected a quantized {type(model).__name__}, got a float one; train it with QuantizationAwareTraining, "
            "or calibrate it"
        )
    quantization.check()
    calls, rounding = quantization.layer_calls, quantization.rounding
    integers = {name: quantization.integers(call) for name, call in calls.items()}
    frozen = {name: _frozen(name, activation) for name, activation in rounding.activations().items()}
    layers = {name: IntegerLayer(held, frozen.get(name)) for name, held in integers.items()}
    rounding.replace(layers, {name: frozen[name] for name in rounding.tensor_names})
    quantization.skipped.update(call.norm.call for call in calls.values() if call.norm is not None)
    quantization.round_again()
    return twin


def calibrated(model: Model, batches: Iterable[ExampleInput], quantizer: Affine | None = None) -> Model:
    """Return a quantized copy of a float network, with ranges from what a few batches hold: no training.

    A range is the mean of those of the batches.

    Args:
        model: A trained network. It is not changed.
        batches: What its `forward` takes; at least one, preprocessed as in training.
        quantizer: Bits and granularity, by default 8-bit integers.

    Raises:
        InputError: If it cannot be traced, is quantized already, or there are no batches.
    """
    if not isinstance(quantizer, Affine | None):
        raise InputError(f"expected a quantizer Affine, whose ranges can be calibrated, got {quantizer}")
    if quantization_of(model) is not None:
        raise InputError(f"expected a float {type(model).__name__} to calibrate, got one that is quantized")
    twin = copy.deepcopy(model)
    quantization: QuantizationInterceptor | None = None
    with evaluating(twin):
        for count, batch in enumerate(batches, start=1):
            try:
                arguments = as_arguments(batch)
            except InputError as error:
                raise InputError(
                    f"expected batches of what {type(model).__name__}.forward takes, without labels, got a "
                    f"{type(batch).__name__}; pass (images for images, labels in loader), for example"
                ) from error
            if quantization is None:
                quantization = quantize(twin, arguments, Affine() if quantizer is None else quantizer)
            for activation in quantization.rounding.activations().values():
                assert isinstance(activation, AffineActivation)
                activation.observing, activation.averaging = True, 1 / count
            twin(*arguments)
    if quantization is None:
        raise InputError("expected at least one batch to calibrate with, got none")
    for activation in quantization.rounding.activations().values():
        activation.observing, activation.quantizing = False, True
    quantization.train(twin.training).check()
    return twin


def _frozen(name: str, activation: nn.Module) -> FrozenActivation:
    if not isinstance(activation, AffineActivation):
        raise InputError(
            f"expected the integers of quantizer affine in {name}, got {type(activation).__name__}, which no integer "
            "kernel computes; export format=onnx instead"
        )
    return FrozenActivation(*activation.grid())
