"""ONNX with integers."""

from pathlib import Path

from torch import nn

from lightning_prune.export.export_format import ExportFormat, OpenedBy
from lightning_prune.export.formats.onnx import open_file
from lightning_prune.export.int8 import integer_network
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.export.onnx_session import require_onnx
from lightning_prune.graph import ExampleInput


def write(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    """Write a quantized network with its integers."""
    write_onnx(integer_network(module), example_input, path)


FORMAT = ExportFormat(
    file="model-int8.onnx",
    use="speed on CPUs: ONNX with QuantizeLinear and DequantizeLinear, int8 weights and int32 biases",
    needs="the same packages, and a network trained with strategy=qat, or calibrate=32",
    opened_by=OpenedBy.OTHER_RUNTIMES,
    write=write,
    open=open_file,
    integer=True,
    require=require_onnx,
)
