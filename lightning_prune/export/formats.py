"""The formats in which finished networks are written: how each is written, found right, and opened again."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.export.int8 import integer_network
from lightning_prune.export.onnx_file import beside, quiet, write_exported_program, write_onnx
from lightning_prune.export.onnx_session import run, session
from lightning_prune.export.packed import load_packed, write_packed
from lightning_prune.export.verification import noise_like, output_tensors
from lightning_prune.graph import ExampleInput, as_arguments, evaluating
from lightning_prune.quantization import dequantize, quantization_of
from lightning_prune.slimming import copy_of

Network = Callable[[Tensor], Tensor]
"""From a batch to what the network in a file makes of it, on the CPU."""


class Format(NamedTuple):
    """One format."""

    file: str
    """How the file is named in a run's folder."""
    use: str
    """What it is for."""
    needs: str
    """What opens it, and what the network has to be."""
    write: Callable[[nn.Module, ExampleInput, Path], None]
    open: Callable[[Path, nn.Module], Network]


def write(module: nn.Module, example_input: ExampleInput, path: str | os.PathLike[str], format: str) -> None:
    """Write a network in a format, and check that the file computes the same.

    Args:
        module: It is written as it is in eval mode, and stays as it was; a quantized one with its rounded weights.
        example_input: Arguments of `forward`; the first axis of those as long as the first one is the batch.
        path: The file. What is already there stays until the new one is found right.
        format: A key of `FORMATS`.

    Raises:
        InputError: If there is no such format, a package is missing, or the network cannot be written in it.
        RuntimeError: If the file computes something else.
    """
    _named(format).write(module, example_input, Path(path))


def opened(path: str | os.PathLike[str], format: str, module: nn.Module) -> Network:
    """Open a file again.

    Args:
        path: What `write` has written.
        format: In which format.
        module: Built by the same code as the one that was written, or that one itself: a packed file holds only what
            goes into it.

    Returns:
        What computes a batch.

    Raises:
        InputError: If there is no such format, a package is missing, or the file is damaged.
    """
    return _named(format).open(Path(path), module)


def _named(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"expected format to be one of {', '.join(FORMATS)}, got {name}")
    return FORMATS[name]


def plain(module: nn.Module) -> nn.Module:
    """Return a network that computes with floats: a quantized one with its rounded weights."""
    return module if quantization_of(module) is None else dequantize(module)


def _write_onnx(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    write_onnx(plain(module), example_input, path)


def _write_integers(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    write_onnx(integer_network(module), example_input, path)


def _open_onnx(path: Path, module: nn.Module) -> Network:
    file = session(path, torch.get_num_threads())
    return lambda batch: run(file, [batch])[0]


def _write_program(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    write_exported_program(plain(module), example_input, path)


def _open_program(path: Path, module: nn.Module) -> Network:
    try:
        with quiet():
            return _without_gradients(torch.export.load(path).module())
    except Exception as error:
        raise InputError(f"expected a file written by torch.export, got {path}, which cannot be read as one") from error


def _write_packed(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    network = copy_of(plain(module)).cpu()
    inputs = noise_like([argument.cpu() for argument in as_arguments(example_input)], 3)
    with beside(path) as part:
        write_packed(network, part)
        again = load_packed(copy_of(network), part)
        with evaluating(network), evaluating(again):
            pairs = zip(output_tensors(network(*inputs)), output_tensors(again(*inputs)), strict=True)
        if not all(torch.equal(one, other) for one, other in pairs):
            raise RuntimeError("the file was not written, since the network in it computes something else")


def _open_packed(path: Path, module: nn.Module) -> Network:
    return _without_gradients(load_packed(copy_of(plain(module)).cpu(), path).eval())


def _without_gradients(network: nn.Module) -> Network:
    def compute(batch: Tensor) -> Tensor:
        with torch.no_grad():
            outputs: Tensor = network(batch.cpu())
        return outputs

    return compute


FORMATS = {
    "onnx": Format(
        "model.onnx",
        "other runtimes: float ONNX, batches of any size; of a quantized network with its rounded weights",
        "onnx, onnxscript and onnxruntime",
        _write_onnx,
        _open_onnx,
    ),
    "onnx-int8": Format(
        "model-int8.onnx",
        "speed on CPUs: ONNX with QuantizeLinear and DequantizeLinear, int8 weights and int32 biases",
        "the same packages, and a network trained with strategy=qat, or calibrate=32",
        _write_integers,
        _open_onnx,
    ),
    "exported-program": Format(
        "model.pt2",
        "torch without this package or the model's code: torch.export.load, float as onnx",
        "torch alone",
        _write_program,
        _open_program,
    ),
    "lpz": Format(
        "model.lpz",
        "the smallest file: only what is not zero, shared weights by index, Huffman codes (Deep Compression)",
        "this package and the model's code to open; small if trained with strategy=weight_sharing",
        _write_packed,
        _open_packed,
    ),
}
"""All of them, by name."""
