"""Whether an int8 file runs in integers and predicts what its network does, and how fast it is beside a float one."""

import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_prune.export.export_format import Network
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.export.onnx_session import onnx_latencies_ms, open_onnx, optimized_onnx_ops, run_onnx
from lightning_prune.graph import ExampleInput, evaluating
from lightning_prune.quantization import quantization_of, release
from lightning_prune.reporting import latencies_ms

SAME_PREDICTIONS = 0.995
"""Share of test images of which an int8 file must predict the class that the quantized network predicts."""

SAME_ACCURACY = 0.002
"""Largest difference of their accuracies."""

FLOAT_LAYERS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv")
"""Operators of onnxruntime that compute a convolution or a linear layer with floats."""


class Int8Measures(NamedTuple):
    """What was measured of an int8 file, of the quantized network in it, and of that with floats.

    Attributes:
        layers: Convolutions and linear layers that onnxruntime runs of the float network.
        integer_layers: How many of them it runs in integers of the int8 file.
        float_bytes: Size of the float network as an ONNX file.
        float_ms: Latency of that file in onnxruntime, in milliseconds.
        int8_ms: Latency of the int8 file there.
        torch_ms: Latency of the float network in torch.
        images: Number of images that were predicted.
        int8_accuracy: Share of the images of which the int8 file predicts the right class.
        quantized_accuracy: The same of the quantized network.
        float_accuracy: The same of the float network.
        same_predictions: Share of the images of which the file predicts the class that the quantized network predicts.
    """

    layers: int
    integer_layers: int
    float_bytes: int
    float_ms: float
    int8_ms: float
    torch_ms: float
    images: int
    int8_accuracy: float
    quantized_accuracy: float
    float_accuracy: float
    same_predictions: float


def measure_int8(
    quantized: nn.Module,
    path: Path,
    example_input: ExampleInput,
    images: Tensor,
    labelled: Iterable[tuple[Tensor, Tensor]],
    threads: int,
) -> Int8Measures:
    """Compare an int8 file with the quantized network that it is of, and with that as a float one.

    Args:
        quantized: A network that gives logits, `(n, n_classes)`; it is not changed.
        path: The int8 file of it.
        example_input: What its `forward` takes, for the float file.
        images: The batch whose latency is measured, `(n, ...)`.
        labelled: Batches of images, `(n, ...)`, and their classes, `(n,)`.
        threads: Of the CPU, for the latency in onnxruntime and all that torch computes.
    """
    plain = copy.deepcopy(quantized)
    release(plain)
    with TemporaryDirectory() as folder:
        float_path = Path(folder) / "float.onnx"
        write_onnx(plain, example_input, float_path)
        float_bytes, layers = float_path.stat().st_size, float_layers(float_path)
        float_ms, int8_ms = onnx_latencies_ms([float_path, path], [images], threads)
    session = open_onnx(path, os.cpu_count() or 1)
    networks: dict[str, Network] = {
        "int8": lambda batch: run_onnx(session, [batch])[0],
        "quantized": quantized,
        "float": plain,
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (torch_ms,) = latencies_ms([plain], (images,), 1.0)
        with evaluating(quantized), evaluating(plain):
            labels, classes = predicted_classes(networks, labelled)
    finally:
        torch.set_num_threads(before)
    accuracy = {name: _equal_share(found, labels) for name, found in classes.items()}
    return Int8Measures(
        layers=layers,
        integer_layers=layers - float_layers(path),
        float_bytes=float_bytes,
        float_ms=float_ms,
        int8_ms=int8_ms,
        torch_ms=torch_ms,
        images=len(labels),
        int8_accuracy=accuracy["int8"],
        quantized_accuracy=accuracy["quantized"],
        float_accuracy=accuracy["float"],
        same_predictions=_equal_share(classes["int8"], classes["quantized"]),
    )


def _equal_share(one: Tensor, other: Tensor) -> float:
    return float((one == other).double().mean())


def refuse_float_layers(path: Path, integer: int, wanted: int) -> None:
    """Refuse a file of which fewer than the wanted layers run in integers.

    Raises:
        RuntimeError: If it is one.
    """
    if integer < wanted:
        raise RuntimeError(
            f"expected {wanted} layers in integers, got {integer}: {dict(optimized_onnx_ops(path))}; the file is "
            "right, but slower than it could be"
        )


def refuse_other_predictions(same: float, accuracy: float, in_torch: float) -> None:
    """Refuse a file that predicts something else than the quantized network.

    Args:
        same: Share of equal predictions.
        accuracy: Of the file.
        in_torch: That of the network.

    Raises:
        RuntimeError: If it does.
    """
    if same < SAME_PREDICTIONS or abs(accuracy - in_torch) > SAME_ACCURACY:
        raise RuntimeError(
            f"expected at least {SAME_PREDICTIONS:.1%} equal predictions and accuracies within "
            f"{100 * SAME_ACCURACY:.1f} points of the quantized network's, got {same:.2%} and {accuracy:.2%} for "
            f"{in_torch:.2%}"
        )


def float_layers(path: Path) -> int:
    """Return how many layers of a file onnxruntime computes with floats."""
    ops = optimized_onnx_ops(path)
    return sum(ops[name] for name in FLOAT_LAYERS)


def quantized_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers of a network that are quantized."""
    quantization = quantization_of(module)
    return [] if quantization is None else list(quantization.layer_calls)


def predicted_classes(
    networks: Mapping[str, Network], labelled: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the labels of all images, `(n,)`, and the classes that networks predict, `(n,)` each, by name."""
    labels: list[Tensor] = []
    classes: dict[str, list[Tensor]] = {name: [] for name in networks}
    for images, targets in labelled:
        labels.append(targets)
        for name, network in networks.items():
            classes[name].append(network(images).argmax(1))
    return torch.cat(labels), {name: torch.cat(found) for name, found in classes.items()}
