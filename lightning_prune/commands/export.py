"""Write the network that a run ended with as a file that other programs open, and check that it computes the same.

    lightning-prune export outputs/2026-11-22/10-00-00                      # float ONNX
    lightning-prune export outputs/2026-11-22/10-00-00 format=onnx-int8     # of a run with strategy=qat
    lightning-prune export outputs/2026-11-22/10-00-00 format=onnx-int8 calibrate=32    # of any other
    lightning-prune export outputs/2026-11-22/10-00-00 format=lpz           # of strategy=[gmp,weight_sharing]

Of a run that was pruned it is the slim network, of one that was fine-tuned after that the fine-tuned one.
"""

import argparse
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning.pytorch import LightningModule
from rich.console import Console
from rich.table import Table

from lightning_prune.commands.key_values import help_of, read_key_values
from lightning_prune.commands.one_line_parser import OneLineParser
from lightning_prune.errors import InputError
from lightning_prune.export import (
    EXPORT_FORMATS,
    calibrated,
    measure_int8,
    packed_sizes,
    quantized_layers,
    refuse_float_layers,
    refuse_other_predictions,
    write_network,
)
from lightning_prune.models import ImageClassifier
from lightning_prune.quantization import quantization_of
from lightning_prune.runs import (
    FinishedRun,
    ending_in_one_line,
    finished_run,
    labelled_images,
    resized,
    training_inputs,
)


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


def main(words: Sequence[str]) -> None:
    """Export one run; what a person got wrong ends it with one line.

    Args:
        words: What was typed.
    """
    formats = [f"  {name}\n    for {one.use}\n    needs {one.needs}" for name, one in EXPORT_FORMATS.items()]
    parser = OneLineParser(
        prog="lightning-prune export",
        description=__doc__,
        epilog="\n".join(["formats:", *formats, "", "options:", help_of(Options(), HELP)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("options", nargs="*", metavar="key=value", help="see below")
    with ending_in_one_line(RuntimeError):
        arguments = parser.parse_args(words)
        export(arguments.run, options_of(arguments.options))


def options_of(typed: Sequence[str]) -> Options:
    """Return the options in a list of key=value.

    Raises:
        InputError: If one is not known, or its value makes no sense.
    """
    options = read_key_values(Options(), typed)
    if options.format not in EXPORT_FORMATS:
        raise InputError(f"expected format to be one of {', '.join(EXPORT_FORMATS)}, got {options.format}")
    if options.calibrate and not EXPORT_FORMATS[options.format].integer:
        of_integers = " or ".join(name for name, one in EXPORT_FORMATS.items() if one.integer)
        raise InputError(f"expected calibrate with format={of_integers}, got format={options.format}")
    return options


def export(folder: Path, options: Options) -> None:
    """Write a run's network in a format, and print what came out.

    Raises:
        InputError: If the run has no network to export, or not in this format.
        RuntimeError: If the file computes something else.
    """
    format = EXPORT_FORMATS[options.format]
    format.require()
    run = finished_run(folder)
    path = Path(options.output) if options.output else folder / format.file
    if run.example is None:
        raise InputError(f"expected a module whose forward takes tensors, got {type(run.module).__name__}")
    module = quantized_of(run, options.calibrate) if format.integer else run.module
    write_network(module, run.example, path, options.format)
    if options.format == "onnx-int8" and isinstance(module, ImageClassifier):
        check_int8(module, run, path, options)
        return
    print(f"{run.file.name} as {os.path.relpath(path)}, {kib(path.stat().st_size)}, with the same outputs")
    if options.format == "lpz":
        print_parts(path, run.dense_bytes)


def quantized_of(run: FinishedRun, batches: int) -> LightningModule:
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
    return calibrated(run.module, islice(training_inputs(run.module, run.data), batches))


# The file -------------------------------------------------------------------------------------------------------------


def check_int8(quantized: ImageClassifier, run: FinishedRun, path: Path, options: Options) -> None:
    """Compare an int8 file with the network that it is of, and with float ones; print a table.

    Raises:
        RuntimeError: If a layer runs in float, or predictions differ.
    """
    assert run.example is not None
    (images,) = resized(run.example, options.batch_size)
    found = measure_int8(quantized, path, run.example, images, labelled_images(run.data), options.threads)
    faster = f"{found.float_ms / found.int8_ms:.2f} x as fast as float"
    print_table(
        ("torch, float", f"{found.float_accuracy:.2%}", "", f"{found.torch_ms:.2f} ms", ""),
        ("onnxruntime, float", "", kib(found.float_bytes), f"{found.float_ms:.2f} ms", ""),
        ("torch, quantized", f"{found.quantized_accuracy:.2%}", "", "", ""),
        (
            "onnxruntime, int8",
            f"{found.int8_accuracy:.2%}",
            kib(path.stat().st_size),
            f"{found.int8_ms:.2f} ms",
            faster,
        ),
    )
    print(
        f"\n{os.path.relpath(path)}: {found.integer_layers} of {found.layers} layers run in integers; "
        f"{found.same_predictions:.2%} of {found.images} test images get the class that the quantized network gives "
        f"them. Latency: {options.batch_size} images, {options.threads} thread{'s' * (options.threads > 1)}."
    )
    refuse_float_layers(path, found.integer_layers, len(quantized_layers(quantized)))
    refuse_other_predictions(found.same_predictions, found.int8_accuracy, found.quantized_accuracy)


def print_parts(path: Path, dense_bytes: int) -> None:
    """Print what is how large in a packed file, how that compares with the dense network, and what would be smaller."""
    found = packed_sizes(path)
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


def kib(count: int) -> str:
    """Return so many bytes as a text."""
    return f"{count / 2**10:.0f} KiB"
