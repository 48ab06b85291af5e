"""Write the network that a run ended with as a file that other programs open, and check that it computes the same.

    python scripts/export.py outputs/2026-11-22/10-00-00                      # float ONNX
    python scripts/export.py outputs/2026-11-22/10-00-00 format=onnx-int8     # of a run with strategy=qat
    python scripts/export.py outputs/2026-11-22/10-00-00 format=onnx-int8 calibrate=32    # of any other
    python scripts/export.py outputs/2026-11-22/10-00-00 format=lpz           # of strategy=[gmp,weight_sharing]

Of a run that was pruned it is the slim network, of one that was fine-tuned after that the fine-tuned one.
"""

import argparse
import copy
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_prune.data import InMemoryImages
from lightning_prune.errors import InputError
from lightning_prune.export import (
    FORMATS,
    calibrated,
    latencies_ms,
    optimized_ops,
    require_onnx,
    run,
    session,
    sizes,
    write,
    write_onnx,
)
from lightning_prune.graph import evaluating, suspended
from lightning_prune.models import ImageClassifier
from lightning_prune.quantization import quantization_of, release
from lightning_prune.reporting import latencies_ms as eager_latencies_ms
from lightning_prune.runs import FinishedRun, ending_in_one_line, finished_run

SAME_PREDICTIONS = 0.995
"""Share of test images of which an int8 file must predict the class that the quantized network predicts."""

SAME_ACCURACY = 0.002
"""Largest difference of their accuracies."""

FLOAT_LAYERS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv")
"""Operators of onnxruntime that compute a convolution or a linear layer with floats."""


class Options(NamedTuple):
    """What can be said at the command line, as key=value."""

    format: str = "onnx"
    output: str = ""
    calibrate: int = 0
    batch_size: int = 32
    threads: int = 1


HELP = {
    "format": "one of the above",
    "output": "file to write; by default into the run's folder",
    "calibrate": "training batches from which the ranges of a network are taken that was not trained for int8",
    "batch_size": "images in the batch whose latency is printed",
    "threads": "of the CPU, for the latency",
}


def main() -> None:
    """Export one run; what a person got wrong ends it with one line."""
    formats = [f"  {name}\n    for {one.use}\n    needs {one.needs}" for name, one in FORMATS.items()]
    lines = [f"  {key}={getattr(Options(), key) or '...'}: {text}" for key, text in HELP.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["formats:", *formats, "", "options:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a run of train.py")
    parser.add_argument("options", nargs="*", metavar="key=value", help="see below")
    arguments = parser.parse_args()
    with ending_in_one_line(RuntimeError):
        export(arguments.run, options_of(arguments.options))


def options_of(typed: Sequence[str]) -> Options:
    """Return the options in a list of key=value.

    Raises:
        InputError: If one is not known, or its value makes no sense.
    """
    given: dict[str, Any] = {}
    for option in typed:
        key, _, value = option.partition("=")
        if key not in Options._fields or not value:
            raise InputError(f"expected options {', '.join(f'{name}=...' for name in Options._fields)}, got {option}")
        if isinstance(getattr(Options(), key), int):
            if not value.isdecimal() or int(value) < 1:
                raise InputError(f"expected {key} to be a whole number of at least 1, got {value}")
            given[key] = int(value)
        else:
            given[key] = value
    options = Options(**given)
    if options.format not in FORMATS:
        raise InputError(f"expected format to be one of {', '.join(FORMATS)}, got {options.format}")
    if options.calibrate and options.format != "onnx-int8":
        raise InputError(f"expected calibrate with format=onnx-int8, got format={options.format}")
    return options


def export(folder: Path, options: Options) -> None:
    """Write a run's network in a format, and print what came out.

    Raises:
        InputError: If the run has no network to export, or not in this format.
        RuntimeError: If the file computes something else.
    """
    if options.format.startswith("onnx"):
        require_onnx()
    run = finished_run(folder)
    path = Path(options.output) if options.output else folder / FORMATS[options.format].file
    module = quantized_of(run, options.calibrate) if options.format == "onnx-int8" else run.module
    write(module, run.data.example_input(2), path, options.format)
    if options.format == "onnx-int8":
        check_int8(module, run.data, path, options)
        return
    print(f"{run.file.name} as {os.path.relpath(path)}, {size(path)}, with the same outputs")
    if options.format == "lpz":
        print_parts(path, run.dense_bytes)


def quantized_of(run: FinishedRun, batches: int) -> ImageClassifier:
    """Return a network as it was trained with rounded numbers, or with ranges from a few training batches.

    Raises:
        InputError: If it was not trained so and no batches are given, or was and there are.
    """
    trained = quantization_of(run.module) is not None
    if trained and batches:
        raise InputError(f"expected calibrate for a float network, got one trained with strategy={run.strategy}")
    if not trained and not batches:
        raise InputError(
            f"expected a run with strategy=qat, got strategy=[{','.join(run.strategy) or 'none'}]; calibrate=32 "
            "takes the ranges from 32 training batches, without training"
        )
    if trained:
        return run.module
    images = (run.data.on_after_batch_transfer(batch, 0)[0] for batch in run.data.train_dataloader())
    return calibrated(run.module, islice(images, batches))


# The file -------------------------------------------------------------------------------------------------------------


def check_int8(quantized: ImageClassifier, data: InMemoryImages, path: Path, options: Options) -> None:
    """Compare an int8 file with the network that it is of, and with float ones; print a table.

    Raises:
        RuntimeError: If a layer runs in float, or predictions differ.
    """
    plain = copy.deepcopy(quantized)
    release(plain)
    images = data.example_input(options.batch_size)
    with TemporaryDirectory() as folder:
        float_path = Path(folder) / "float.onnx"
        write_onnx(plain, data.example_input(2), float_path)
        float_size, layers = size(float_path), float_layers(float_path)
        float_ms, int8_ms = latencies_ms([float_path, path], [images], options.threads)
    torch.set_num_threads(options.threads)
    (eager_ms,) = eager_latencies_ms([plain], (images,), 1.0)
    labels, classes, from_file = predictions(quantized, data, path)
    with suspended():
        _, plain_classes, _ = predictions(quantized, data, None)
    accuracy, in_torch, in_float = (
        float((found == labels).double().mean()) for found in (from_file, classes, plain_classes)
    )
    same = float((classes == from_file).double().mean())
    faster = f"{float_ms / int8_ms:.2f} x as fast as float"
    print_table(
        ("torch, float", f"{in_float:.2%}", "", f"{eager_ms:.2f} ms", ""),
        ("onnxruntime, float", "", float_size, f"{float_ms:.2f} ms", ""),
        ("torch, quantized", f"{in_torch:.2%}", "", "", ""),
        ("onnxruntime, int8", f"{accuracy:.2%}", size(path), f"{int8_ms:.2f} ms", faster),
    )
    integer = layers - float_layers(path)
    print(
        f"\n{os.path.relpath(path)}: {integer} of {layers} layers run in integers; {same:.2%} of {len(labels)} test "
        f"images get the class that the quantized network gives them. Latency: {options.batch_size} images, "
        f"{options.threads} thread{'s' * (options.threads > 1)}."
    )
    refuse_slow(path, integer, len(layers_of(quantized)))
    refuse_different(same, accuracy, in_torch)


def print_parts(path: Path, dense_bytes: int) -> None:
    """Print what is how large in a packed file, how that compares with the dense network, and what would be smaller."""
    found = sizes(path)
    parts = {**found.parts._asdict(), "header": found.header}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "bytes", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for name, count in parts.items():
        table.add_row(name, f"{count:,}", f"{count / found.total:.1%}")
    Console().print(table)
    print(f"\n{dense_bytes / found.total:.1f} x smaller than the {dense_bytes:,} bytes of the dense network in float32")
    if found.parts.raw > found.total / 2:
        largest = max(found.tensors, key=lambda name: found.tensors[name].raw).partition("/")[2]
        print(
            f"Nothing is shared in most of it, {largest} for example: train with strategy=[gmp,weight_sharing], and "
            "finetune=none, for the zeros and the few values that pack well"
        )


def print_table(*rows: tuple[str, str, str, str, str]) -> None:
    """Print what was measured of each model: its name, accuracy, size, latency and a remark."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "accuracy", "size", "latency", ""):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def refuse_slow(path: Path, integer: int, wanted: int) -> None:
    """Refuse a file of which fewer than the wanted layers run in integers.

    Raises:
        RuntimeError: If it is one.
    """
    if integer < wanted:
        raise RuntimeError(
            f"expected {wanted} layers in integers, got {integer}: {dict(optimized_ops(path))}; the file is right, but "
            "slower than it could be"
        )


def refuse_different(same: float, accuracy: float, in_torch: float) -> None:
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
    ops = optimized_ops(path)
    return sum(ops[name] for name in FLOAT_LAYERS)


def layers_of(module: ImageClassifier) -> list[str]:
    """Return the names of the layers that are quantized."""
    quantization = quantization_of(module)
    assert quantization is not None
    return list(quantization.layer_calls)


def predictions(module: ImageClassifier, data: InMemoryImages, path: Path | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the labels of all test images, and the classes that a module and a file predict."""
    opened = session(path, os.cpu_count() or 1) if path is not None else None
    labels, classes, from_file = [], [], []
    with evaluating(module):
        for batch in data.test_dataloader():
            images, targets = data.on_after_batch_transfer(batch, 0)
            labels.append(targets)
            classes.append(module(images).argmax(1))
            from_file.append(classes[-1] if opened is None else run(opened, [images])[0].argmax(1))
    return torch.cat(labels), torch.cat(classes), torch.cat(from_file)


def size(path: Path) -> str:
    """Return how large a file is."""
    return f"{path.stat().st_size / 2**10:.0f} KiB"


if __name__ == "__main__":
    main()
