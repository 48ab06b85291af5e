"""2:4 weights in the layout of sparse tensor cores, wherever that is measured to be faster."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS

from lightning_prune.errors import InputError
from lightning_prune.export.sparse_layers import SparseLinear, SparsePointwise
from lightning_prune.graph import ExampleInput, as_arguments, evaluating, stored_tensors
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.reporting import latencies_ms
from lightning_prune.slimming import Model, copy_of, reference_outputs, same_outputs

log = logging.getLogger(__name__)

FASTER = 1.05
"""Smallest ratio of times for which a layer is replaced: less may be the noise of the clock."""

BACKENDS = (SparseSemiStructuredTensorCUSPARSELT, SparseSemiStructuredTensorCUTLASS)
"""torch's layouts; which of them a device runs, and which is faster there, is tried out."""

Alternatives = Callable[[str, nn.Module, Tensor], list[nn.Module]]
"""From a layer's name, the layer and its input to what may stand in its place."""


@dataclass(frozen=True)
class SemiStructured(Generic[Model]):
    """Hold a model with semi-structured weights, and what was measured.

    Attributes:
        model: A copy of the dense model in which the layers in `converted` are replaced.
        speedups: Time of each layer that the layout fits, divided by its time in that layout, by name.
    """

    model: Model
    speedups: dict[str, float]

    @property
    def converted(self) -> list[str]:
        """Names of the layers that run in the layout."""
        return [name for name, speedup in self.speedups.items() if speedup >= FASTER]


def check_n_m(name: str, weight: Tensor, granularity: NM) -> None:
    """Check that a weight keeps an N:M pattern along its input channels, dimension 1.

    Args:
        name: What to call the weight in the message, its path in the model.
        weight: Weight of a linear layer or a convolution, `(n_outputs, n_inputs, ...)`.
        granularity: The pattern.

    Raises:
        InputError: If a group has too many non-zeros, with the place of the first one, or the weight has no groups.
    """
    n, m = granularity.n, granularity.m
    if weight.ndim < 2 or weight.shape[1] % m:
        raise InputError(
            f"expected {name} with a multiple of {m} inputs (dimension 1), got shape {tuple(weight.shape)}"
        )
    rows = (weight.detach() != 0).movedim(1, -1)
    counts = rows.reshape(*rows.shape[:-1], -1, m).sum(dim=-1)
    if (counts > n).any():
        output, *kernel, group = place = (counts > n).nonzero()[0].tolist()
        where = f"output {output}, inputs {group * m} to {group * m + m - 1}"
        where += f", kernel position {tuple(kernel)}" if kernel else ""
        raise InputError(
            f"expected at most {n} non-zeros in each {m} consecutive inputs of {name}, got {int(counts[tuple(place)])} "
            f"at {where}; prune it {n}:{m} first"
        )


def to_semi_structured(model: Model, example_input: ExampleInput, *, seconds: float = 0.2) -> SemiStructured[Model]:
    """Put 2:4 weights into torch's semi-structured layout, where that makes their layer faster.

    Linear layers and 1x1 convolutions qualify, in float16 or bfloat16, when their shapes suit the device's kernels.
    Whether a layer is replaced is decided by timing it against the dense one at call time, on the inputs that it gets
    from the example: small layers are slower. `nn.Linear` has no dense int8 to compare with, so int8 is left out.

    Args:
        model: A model on a CUDA device. It is not changed.
        example_input: A tensor or a tuple of tensors that `forward` takes, of the batch size that is to be fast.
        seconds: About how long to time each version of each layer, in seconds.

    Raises:
        InputError: If the device or its build of torch has no kernels for the layout, no layer is 2:4 and of a shape
            and number format that they take, or the model's code does without calling its layers.

    Reference:
        Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021, arXiv 2104.08378.
    """
    device = next((tensor.device for tensor in stored_tensors(model).values()), torch.device("cpu"))
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        raise InputError(
            "expected a model on a CUDA device of compute capability 8.0 or higher, which has sparse tensor cores, got "
            f"one on {device}; call model.cuda() where there is one, or deploy with TensorRT and --sparsity=enable"
        )
    small = copy_of(model)
    inputs = record_inputs(small, example_input)
    speedups = replace_where_faster(small, inputs, _semi_structured, seconds=seconds)
    result = SemiStructured(small, speedups)
    if not same_outputs(small, reference_outputs(model, example_input)):
        raise InputError(
            f"expected {type(model).__name__} to give the same outputs with semi-structured "
            f"{', '.join(result.converted)}, got others; leave dense what its code reads without calling the layer"
        )
    return result


def record_inputs(model: nn.Module, example_input: ExampleInput) -> dict[str, Tensor]:
    """Return what first enters each linear layer and 1x1 convolution when a model runs on the example, by name.

    That is `(..., in_features)`, and `(n, in_channels, h, w)`.

    Raises:
        InputError: If there is no such layer, or the model calls none.
    """
    inputs: dict[str, Tensor] = {}
    names = {module: name for name, module in model.named_modules() if name and _multiplies(module)}

    def record(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        for x in arguments[:1]:
            inputs.setdefault(names[layer], x)

    device = next(iter(stored_tensors(model).values())).device
    hooks = [layer.register_forward_pre_hook(record) for layer in names]
    try:
        with evaluating(model), torch.compiler.set_stance("force_eager"):
            model(*(argument.to(device) for argument in as_arguments(example_input)))
    finally:
        for hook in hooks:
            hook.remove()
    if not inputs:
        raise InputError(f"expected a model that calls linear layers or 1x1 convolutions, got {type(model).__name__}")
    return inputs


def _multiplies(module: nn.Module) -> bool:
    """Return whether a module is a product of its weight with its input, and of a class without code of its own."""
    if type(module) is nn.Conv2d:
        unpadded = module.padding in ((0, 0), "same", "valid")
        return module.kernel_size == (1, 1) and unpadded and module.groups == 1
    return type(module) is nn.Linear


def replace_where_faster(
    model: nn.Module, inputs: dict[str, Tensor], alternatives: Alternatives, *, seconds: float
) -> dict[str, float]:
    """Replace, in place, each layer by its fastest alternative if that is faster than the layer.

    Versions of a layer take turns, so that a clock that drifts does not decide.

    Args:
        model: The model.
        inputs: What enters the layers to look at, of any shape, by their names.
        alternatives: What may replace a layer; it raises InputError, naming the reason, where nothing may.
        seconds: About how long to time each version, in seconds.

    Returns:
        The speedup of each layer that has an alternative, by name; from `FASTER` on, the layer was replaced.

    Raises:
        InputError: If no layer has an alternative: the reason of the first.
    """
    speedups: dict[str, float] = {}
    faster: dict[nn.Module, nn.Module] = {}
    reasons: list[InputError] = []
    for name, x in inputs.items():
        layer = model.get_submodule(name)
        try:
            versions = [layer, *alternatives(name, layer, x)]
        except InputError as error:
            reasons.append(error)
            continue
        times = latencies_ms(versions, (x,), seconds)
        best = min(range(1, len(times)), key=times.__getitem__)
        speedups[name] = times[0] / times[best]
        if speedups[name] >= FASTER:
            faster[layer] = versions[best]
    if not speedups:
        raise reasons[0]
    for reason in reasons:
        log.info("left a layer dense: %s", reason)
    for module in list(model.modules()):
        for key, child in module._modules.items():
            if child in faster:
                module._modules[key] = faster[child]
    return speedups


def _semi_structured(name: str, layer: nn.Module, x: Tensor) -> list[nn.Module]:
    """Return a layer in each of torch's layouts that holds its weight to the last bit, and runs on its input.

    Raises:
        InputError: If there is none.
    """
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    dense = layer.weight
    check_n_m(f"{name}.weight", dense, NM(2, 4))
    if dense.dtype not in (torch.float16, torch.bfloat16):
        raise InputError(f"expected {name}.weight in float16 or bfloat16, got {dense.dtype}; call model.half() before")
    weight = dense.detach().flatten(1).contiguous()
    found: list[nn.Module] = []
    failure = "another weight back"
    for backend in BACKENDS:
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor is in prototype")
                packed = backend.from_dense(weight)
                sparse = SparseLinear(packed, layer.bias)
                if isinstance(layer, nn.Conv2d):
                    sparse = SparsePointwise(packed, layer.bias, layer.stride)
                sparse(x)
                if torch.equal(packed.to_dense(), weight):  # type: ignore[no-untyped-call]
                    found.append(sparse)
        except RuntimeError as error:  # of the device, the build of torch, the shape
            failure = str(error).partition("\n")[0]
    if not found:
        raise InputError(
            f"expected {name}.weight, of shape {tuple(dense.shape)}, to suit torch's semi-structured kernels on "
            f"{dense.device}, got: {failure}"
        )
    return found
