"""What a format of finished networks is; each module in `formats/` defines one."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_prune.graph import ExampleInput
from lightning_prune.quantization import dequantize, quantization_of

Network = Callable[..., Tensor]
"""From a batch, `(n, ...)` for each argument, to what the network in a file makes of it on the CPU, `(n, ...)`."""


class OpenedBy(IntEnum):
    """What opens a file, that which asks least of its owner first: the order in which formats are listed."""

    OTHER_RUNTIMES = 0
    TORCH = 1
    THIS_PACKAGE = 2


def _nothing() -> None:
    """Require no package."""


@dataclass(frozen=True)
class ExportFormat:
    """One format. Its name at the command line is that of its module, with dashes.

    Args:
        file: How the file is named in a run's folder.
        use: What it is for.
        needs: What opens it, and what the network has to be.
        opened_by: The first of these that opens it.
        write: Writes a network, with an example input, into a file, and checks that the file computes the same.
        open: Opens a file again, of the network that is given beside it.
        integer: Whether the network has to be quantized to integers.
        require: Raises InputError if a package is missing.
    """

    file: str
    use: str
    needs: str
    opened_by: OpenedBy
    write: Callable[[nn.Module, ExampleInput, Path], None]
    open: Callable[[Path, nn.Module], Network]
    integer: bool = False
    require: Callable[[], None] = _nothing


def float_network(module: nn.Module) -> nn.Module:
    """Return a network that computes with floats: a quantized one with its rounded weights."""
    return module if quantization_of(module) is None else dequantize(module)


def on_cpu(network: Callable[..., Tensor]) -> Network:
    """Return what computes batches, `(n, ...)`, wherever they are, on the CPU and without gradients."""

    def compute(*batch: Tensor) -> Tensor:
        with torch.no_grad():
            return network(*(x.cpu() for x in batch))

    return compute
