"""The integers with which a quantized layer runs, its batch norm folded in."""

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.quantization.integer_layers import FrozenNorm, IntegerWeights, as_integers
from lightning_prune.quantization.quantizers.affine import AffineActivation, AffineWeight
from lightning_prune.quantization.quantizers.quantizer import Activation, Layer

_LEAST_SCALE = 1e-4
"""Of a batch norm that is folded into a weight: a channel that it turns off must not divide by zero."""


class NormTensors(NamedTuple):
    """What a batch norm computes with; the tensors are `(n_channels,)`, `weight` and `bias` None without them."""

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    variance: Tensor
    eps: float


def computes_in_integers(layer: Layer, reads: Activation | None) -> bool:
    """Return whether a layer has integer weights, and now reads integers.

    Args:
        layer: What computes it, or an `IntegerLayer`, which has its integers already.
        reads: What rounds its input; None if nothing does.
    """
    of_integers = isinstance(layer, Layer) and isinstance(layer.weight, AffineWeight)
    return of_integers and isinstance(reads, AffineActivation) and reads.quantizing


def norm_scale(norm: NormTensors, weight_dims: int, axis: int) -> Tensor:
    """Return what a batch norm multiplies by, `(1, ..., n_channels, ..., 1)` for the weight in front of it; never zero.

    Args:
        norm: A batch norm of the layer's output channels.
        weight_dims: Number of dimensions of the weight.
        axis: The weight's dimension of output channels.
    """
    scale = (norm.weight.detach() if norm.weight is not None else 1.0) / (norm.variance + norm.eps).sqrt()
    scale = torch.where(scale < 0, scale.clamp(max=-_LEAST_SCALE), scale.clamp(min=_LEAST_SCALE))
    shape = [1] * weight_dims
    shape[axis] = -1
    return scale.reshape(shape)


def integers_of(
    name: str,
    layer: Layer,
    reads: Activation | None,
    weight: Tensor,
    axis: int,
    bias: Tensor | None,
    norm: NormTensors | None,
) -> IntegerWeights:
    """Return the weight and the bias with which a layer runs in integers, the batch norm behind it folded in.

    Args:
        name: The layer's, for messages.
        layer: What computes it.
        reads: What rounds its input; None if nothing does.
        weight: The stored weight, of two dimensions or more.
        axis: The weight's dimension of output channels.
        bias: `(n_channels,)`, or None.
        norm: The batch norm behind it, which then is to be left out, or None.

    Raises:
        InputError: If it is not quantized to integers.
    """
    if not isinstance(layer.weight, AffineWeight) or not isinstance(reads, AffineActivation):
        raise InputError(
            f"expected integer weights and inputs of {name}, as those of quantizer affine with at most 8 "
            f"bits, got {type(layer.weight).__name__} that reads "
            f"{'floats' if reads is None else type(reads).__name__}; export format=onnx instead"
        )
    folded = norm_scale(norm, weight.ndim, axis) if norm is not None and layer.folds else None
    weight = weight.detach().float()
    codes, scale = layer.weight.codes(weight if folded is None else weight * folded)
    return as_integers(
        codes,
        scale,
        axis,
        reads.grid()[0],
        bias=bias,
        norm=None if norm is None else FrozenNorm.of(*norm),
        folded=None if folded is None else folded.flatten(),
    )
