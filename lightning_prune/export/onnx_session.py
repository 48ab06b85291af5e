"""Running ONNX files: in which operators, and how fast."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_prune.errors import InputError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_BLOCK_SECONDS = 0.02
"""Time that one file runs on end before the next has its turn: one pass would find the other's weights in the cache."""


def require_onnx() -> None:
    """Refuse to go on without the packages that write and run ONNX files.

    Raises:
        InputError: If one is missing.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"expected the packages onnx, onnxscript and onnxruntime, {', '.join(missing)} missing; "
            'install them with pip install "lightning-prune[onnx]"'
        )


def open_onnx(file: Path | bytes, threads: int = 1, optimized: Path | None = None) -> "InferenceSession":
    """Open a file on the CPU.

    Args:
        file: Its path, or what is in it.
        threads: That one operator may use.
        optimized: Where to write the graph that will run, if anywhere.

    Raises:
        InputError: If a package is missing, the file damaged, or an operator unknown for its numbers.
    """
    require_onnx()
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait busily slow down whatever else runs, such as the other files of a comparison.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    try:
        return InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common base
        where = "the model" if isinstance(file, bytes) else str(file)
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"expected {where} to be ONNX that onnxruntime runs on a CPU, got {reason}") from error


def run_onnx(session: "InferenceSession", inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the outputs for inputs, both in the order of the file and of whatever shapes it tells."""
    names = [value.name for value in session.get_inputs()]
    feed = {name: tensor.cpu().numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(output) for output in session.run(None, feed)]


def optimized_onnx_ops(path: Path) -> Counter[str]:
    """Count the operators that onnxruntime runs of a file on this machine, by type.

    `QLinearConv`, `QGemm`, `QLinearAdd` and others that begin with Q compute with integers.

    Raises:
        InputError: If a package is missing.
    """
    require_onnx()
    import onnx

    with TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        open_onnx(path, optimized=optimized)
        return Counter(node.op_type for node in onnx.load(optimized).graph.node)


def onnx_latencies_ms(
    paths: Sequence[Path], inputs: Sequence[Tensor], threads: int = 1, seconds: float = 1.0
) -> list[float]:
    """Return the median time of a run of each file, in milliseconds, measured in turn and in alternating order.

    Args:
        paths: Files that take the same inputs.
        inputs: One tensor for each input, of its shape.
        threads: That each may use.
        seconds: About how long to measure each, in seconds; at least six times.

    Raises:
        InputError: If a package is missing.
    """
    sessions = [open_onnx(path, threads) for path in paths]

    def timed(index: int, repeats: int) -> float:
        start = perf_counter()
        for _ in range(repeats):
            sessions[index].run(None, feeds[index])
        return (perf_counter() - start) / repeats

    arrays = [tensor.cpu().numpy() for tensor in inputs]
    feeds = [{value.name: array for value, array in zip(each.get_inputs(), arrays, strict=True)} for each in sessions]
    order = list(range(len(sessions)))
    for index in order:
        timed(index, 1)  # allocates memory
    repeats = [max(1, round(_BLOCK_SECONDS / timed(index, 1))) for index in order]
    times: list[list[float]] = [[] for _ in order]
    end = perf_counter() + seconds * len(order)
    while len(times[0]) < 6 or perf_counter() < end:
        for index in order:
            times[index].append(timed(index, repeats[index]))
        order.reverse()
    return [1e3 * median(each) for each in times]
