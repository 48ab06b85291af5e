"""The file of `torch.export`."""

from pathlib import Path

import torch
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.export.export_format import ExportFormat, Network, OpenedBy, float_network, on_cpu
from lightning_prune.export.onnx_file import quiet, write_exported_program
from lightning_prune.graph import ExampleInput


def write(module: nn.Module, example_input: ExampleInput, path: Path) -> None:
    """Write a network with floats."""
    write_exported_program(float_network(module), example_input, path)


def open_file(path: Path, module: nn.Module) -> Network:
    """Open a file in torch.

    Raises:
        InputError: If it is damaged.
    """
    try:
        with quiet():
            return on_cpu(torch.export.load(path).module())
    except Exception as error:
        raise InputError(f"expected a file written by torch.export, got {path}, which cannot be read as one") from error


FORMAT = ExportFormat(
    file="model.pt2",
    use="torch without this package or the model's code: torch.export.load, float as onnx",
    needs="torch alone",
    opened_by=OpenedBy.TORCH,
    write=write,
    open=open_file,
)
