"""The packed file of Deep Compression."""

from pathlib import Path

import torch
from torch import nn

from lightning_prune.export.export_format import ExportFormat, Network, OpenedBy, float_network, on_cpu
from lightning_prune.export.onnx_file import beside
from lightning_prune.export.packed import load_packed, write_packed
from lightning_prune.export.verification import noise_like, output_tensors
from lightning_prune.graph import ExampleInput, as_arguments, evaluating
from lightning_prune.slimming import copy_of


def write(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    """Write a network with floats.

    Raises:
        RuntimeError: If the network in the file computes something else.
    """
    network = copy_of(float_network(module)).cpu()
    inputs = noise_like([argument.cpu() for argument in as_arguments(example_input)], 3)
    with beside(path) as part:
        write_packed(network, part)
        again = load_packed(copy_of(network), part)
        with evaluating(network), evaluating(again):
            pairs = zip(output_tensors(network(*inputs)), output_tensors(again(*inputs)), strict=True)
        if not all(torch.equal(one, other) for one, other in pairs):
            raise RuntimeError("the file was not written, since the network in it computes something else")


def open_file(path: Path, module: nn.Module) -> Network:
    """Load a file into a copy of a network."""
    return on_cpu(load_packed(copy_of(float_network(module)).cpu(), path).eval())


FORMAT = ExportFormat(
    file="model.lpz",
    use="the smallest file: only what is not zero, shared weights by index, Huffman codes (Deep Compression)",
    needs="this package and the model's code to open; small if trained with strategy=weight_sharing",
    opened_by=OpenedBy.THIS_PACKAGE,
    write=write,
    open=open_file,
)
