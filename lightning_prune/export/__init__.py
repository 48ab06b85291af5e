"""Export: finished models in the formats that other runtimes and kernels read; one file a format."""

from lightning_prune.export.formats import FORMATS, opened, write
from lightning_prune.export.int8 import calibrated, integer_network
from lightning_prune.export.integer_executor import IntegerExecutor
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.export.onnx_session import latencies_ms, optimized_ops, require_onnx, run, session
from lightning_prune.export.packed import load_packed, sizes, write_packed
from lightning_prune.export.semi_structured import to_semi_structured
from lightning_prune.export.weight_files import (
    ArchitectureMismatch,
    copy_weights,
    difference,
    fingerprint,
    load_weights,
)

__all__ = [
    "FORMATS",
    "ArchitectureMismatch",
    "IntegerExecutor",
    "calibrated",
    "copy_weights",
    "difference",
    "fingerprint",
    "integer_network",
    "latencies_ms",
    "load_packed",
    "load_weights",
    "opened",
    "optimized_ops",
    "require_onnx",
    "run",
    "session",
    "sizes",
    "to_semi_structured",
    "write",
    "write_onnx",
    "write_packed",
]
