"""Export: finished models in the formats that other runtimes and kernels read; one file a format."""

from lightning_prune.export.int8 import calibrated, integer_network
from lightning_prune.export.int8_check import (
    measure_int8,
    quantized_layers,
    refuse_float_layers,
    refuse_other_predictions,
)
from lightning_prune.export.integer_executor import IntegerExecutor
from lightning_prune.export.network_files import EXPORT_FORMATS, open_network, write_network
from lightning_prune.export.onnx_file import write_onnx
from lightning_prune.export.onnx_session import open_onnx, run_onnx
from lightning_prune.export.packed import load_packed, packed_sizes, write_packed
from lightning_prune.export.semi_structured import to_semi_structured
from lightning_prune.export.weight_files import (
    ArchitectureMismatch,
    copy_weights,
    fingerprint,
    load_weights,
    shape_mismatch,
)

__all__ = [
    "EXPORT_FORMATS",
    "ArchitectureMismatch",
    "IntegerExecutor",
    "calibrated",
    "copy_weights",
    "fingerprint",
    "integer_network",
    "load_packed",
    "load_weights",
    "measure_int8",
    "open_network",
    "open_onnx",
    "packed_sizes",
    "quantized_layers",
    "refuse_float_layers",
    "refuse_other_predictions",
    "run_onnx",
    "shape_mismatch",
    "to_semi_structured",
    "write_network",
    "write_onnx",
    "write_packed",
]
