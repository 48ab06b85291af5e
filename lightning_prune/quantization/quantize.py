"""Let a network compute with rounded numbers, without changing its code; and take that back."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, LayerPatterns, stored_tensors
from lightning_prune.quantization.placement import place
from lightning_prune.quantization.quantization_interceptor import (
    NAME,
    QuantizationInterceptor,
    quantization_of,
    tensor_in_use,
)
from lightning_prune.quantization.quantized_calls import LayerCall, QuantizerPlacement
from lightning_prune.quantization.quantizers.quantizer import Activation, Layer, Quantizer
from lightning_prune.quantization.rounding_modules import RoundingModules

Model = TypeVar("Model", bound=nn.Module)


def quantize(
    model: nn.Module,
    example_input: ExampleInput,
    quantizer: Quantizer,
    layers: Mapping[str, Quantizer | None] | None = None,
    first_bits: int | None = None,
    last_bits: int | None = None,
) -> QuantizationInterceptor:
    """Let a network compute with rounded weights from now on, and with rounded tensors once these are turned on.

    Args:
        model: It is changed in place; its `state_dict` stays what it was.
        example_input: What its `forward` takes.
        quantizer: The method.
        layers: Another method, or None for float, by the names of layers or patterns of them; the first match counts.
        first_bits: Bits of the weights and inputs of the first layer; None for what the method's paper has.
        last_bits: The same for the last layer.

    Raises:
        InputError: If it cannot be traced, a pattern matches no layer, or nothing is left to be quantized.
    """
    chosen: dict[str, Quantizer] = {}

    def choose(names: list[str]) -> list[str]:
        chosen.update(_methods(names, quantizer, layers or {}, LayerPatterns(model), first_bits, last_bits))
        return list(chosen)

    placement = place(model, example_input, choose)
    if not chosen:
        reasons = "".join(f"; {name}: {reason}" for name, reason in placement.left.items())
        raise InputError(f"expected layers to quantize in {type(model).__name__}, got none{reasons}")
    tensors = _tensors(placement, quantizer, chosen) if quantizer.integer else {}
    built = {call.name: _layer(model, call, chosen[call.name], tensors) for call in placement.layers}
    quantization = QuantizationInterceptor(placement, RoundingModules(built, tensors))
    for call in placement.layers:
        if chosen[call.name].drops_relu:
            quantization.skipped.update(call.relus)
    device = next(iter(stored_tensors(model).values())).device
    _host(model).add_module(NAME, quantization.to(device).train(model.training))
    quantization.attach(model, placement.part)
    return quantization


def _methods(
    names: list[str],
    quantizer: Quantizer,
    layers: Mapping[str, Quantizer | None],
    patterns: LayerPatterns,
    first_bits: int | None,
    last_bits: int | None,
) -> dict[str, Quantizer]:
    """Return the method of each layer that is quantized."""
    for pattern in layers:
        patterns.check(f"layers[{pattern}]", pattern, names, "a layer that can be quantized")
    edges = {names[-1]: last_bits, names[0]: first_bits} if names else {}
    methods: dict[str, Quantizer] = {}
    for name in names:
        method: Quantizer | None = quantizer
        if name in edges:
            bits = quantizer.edge_bits if edges[name] is None else edges[name]
            method = quantizer if bits is None else quantizer.of_bits(bits)
        method = patterns.first(layers, name, method)
        if method is not None:
            methods[name] = method
    return methods


def _tensors(
    placement: QuantizerPlacement, quantizer: Quantizer, methods: Mapping[str, Quantizer]
) -> dict[str, Activation]:
    """Return what rounds each tensor between layers: by the method of the first layer that reads it."""
    readers = {layer.reads: methods[layer.name] for layer in reversed(placement.layers)}
    built = {tensor.name: readers.get(tensor.name, quantizer).activation(tensor.signed) for tensor in placement.tensors}
    return {name: activation for name, activation in built.items() if activation is not None}


def _layer(model: nn.Module, call: LayerCall, method: Quantizer, tensors: Mapping[str, Activation]) -> Layer:
    """Return what computes a layer."""
    weight = tensor_in_use(model, call.weight).detach().float()
    own = None if call.reads in tensors else method.activation(call.signed)
    layer = method.layer(method.weight(weight, call.axis), own)
    layer.folds = method.folds
    return layer


def _host(model: nn.Module) -> nn.Module:
    """Return the module of a model of which others become submodules: not one that runs all that it has."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return next((module for module in model.modules() if not isinstance(module, containers)), model)


def release(model: nn.Module) -> None:
    """Let a network compute with its own numbers again; it is as it was before `quantize`, but for its training."""
    quantization = quantization_of(model)
    if quantization is not None:
        quantization.detach()
        for module in model.modules():
            module._modules.pop(NAME, None)


def dequantize(model: Model) -> Model:
    """Return a plain float copy of a quantized network whose weights are those that it computed with, to the bit.

    Tensors between layers are not rounded in it.

    Raises:
        InputError: If it is not quantized, or a weight is made from others, or its layers do more than round.
    """
    plain = copy.deepcopy(model)
    quantization = quantization_of(plain)
    if quantization is None:
        raise InputError(f"expected a quantized {type(model).__name__}, got one that is not")
    if quantization.skipped:
        raise InputError("expected layers that round what they are given, got layers that take the place of a ReLU")
    with torch.no_grad():
        rounded = {
            call.weight: quantization.rounding.layer(call.name).rounded(
                quantization.stored(call.weight), quantization.norm_scale(call)
            )
            for call in quantization.layer_calls.values()
        }
        for name, weight in rounded.items():
            if name not in stored_tensors(quantization.model, duplicates=True):
                raise InputError(f"expected weights that are stored, got {name}, which is made from others")
            quantization.stored(name).copy_(weight)
    release(plain)
    return plain
