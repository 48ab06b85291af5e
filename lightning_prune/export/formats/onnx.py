"""Float ONNX."""

from pathlib import Path

import torch
from torch import nn

from lightning_prune.export.export_format import ExportFormat, Network, OpenedBy, float_network
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.export.onnx_session import open_onnx, require_onnx, run_onnx
from lightning_prune.graph import ExampleInput


def write(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    """Write a network with floats."""
    write_onnx(float_network(module), example_input, path)


def open_file(path: Path, module: nn.Module) -> Network:
    """Open a file in onnxruntime."""
    session = open_onnx(path, torch.get_num_threads())
    return lambda *batch: run_onnx(session, list(batch))[0]


FORMAT = ExportFormat(
    file="model.onnx",
    use="other runtimes: float ONNX, batches of any size; of a quantized network with its rounded weights",
    needs="onnx, onnxscript and onnxruntime",
    opened_by=OpenedBy.OTHER_RUNTIMES,
    write=write,
    open=open_file,
    require=require_onnx,
)
