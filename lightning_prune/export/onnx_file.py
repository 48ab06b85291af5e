"""Files for inference engines: ONNX, and torch's own."""

import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lightning_prune.errors import InputError
from lightning_prune.export.onnx_session import open_onnx, require_onnx, run_onnx
from lightning_prune.export.verification import (
    Run,
    first_difference,
    noise_like,
    output_names,
    output_tensors,
    rounded_names,
)
from lightning_prune.graph import ExampleInput, as_arguments, evaluating, stored_tensors
from lightning_prune.quantization import IntegerLayer, quantization_of, scaled
from lightning_prune.slimming import copy_of

_BATCH_SIZES = (1, 3)
"""Those with which a file is tried out."""


def write_onnx(model: nn.Module, example_input: ExampleInput, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file that takes batches of any size, and check that onnxruntime computes the same.

    Weights that the model holds as integers are integers in the file. Inputs have the names of `forward`'s arguments,
    an output the name `output`, several `output_0` and so on. A file that is already there stays until the new one is
    found right.

    Args:
        model: It is written as it is in eval mode, and stays as it was.
        example_input: Arguments of `forward`; the first axis of those as long as the first one is the batch.
        path: The file.

    Raises:
        InputError: If a package is missing, the model cannot be traced for any batch size, or uses what ONNX does not
            have.
        RuntimeError: If onnxruntime computes something else.
    """
    require_onnx()
    from lightning_prune.export.onnx_graph import (
        OPSET,
        forget_origin,
        hide,
        in_bytes,
        keep_integers,
        show,
        translations,
    )

    arguments = as_arguments(example_input)
    program = _export(model, arguments)
    outputs = [f"output_{i}" for i in range(len(output_names(program)))]
    with quiet(), beside(Path(path)) as part:
        try:
            written = torch.onnx.export(
                program,
                input_names=_argument_names(model)[: len(arguments)],
                output_names=outputs if len(outputs) > 1 else ["output"],
                dynamic_shapes=_batch_axes(model, arguments),  # for the name of the axis
                opset_version=OPSET,
                custom_translation_table=translations(),
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ if isinstance(error.__cause__, torch.onnx.OnnxExporterError) else error
            raise InputError(
                f"expected a {type(model).__name__} of operators and outputs that ONNX has, got {_reason(cause)}"
            ) from error
        assert written is not None
        rounded = show(written.model, rounded_names(program))
        keep_integers(written.model)
        session, names = open_onnx(in_bytes(written.model)), [*output_names(program), *rounded]
        _verify(program, arguments, lambda inputs: dict(zip(names, run_onnx(session, inputs), strict=True)))
        hide(written.model, len(rounded))
        forget_origin(written.model)
        written.save(part, external_data=False)
        open_onnx(part)


def write_exported_program(model: nn.Module, example_input: ExampleInput, path: str | os.PathLike[str]) -> None:
    """Write a model as a `torch.export` file that takes batches of any size; `torch.export.load` needs nothing else.

    Args:
        model: See `write_onnx`.
        example_input: See `write_onnx`.
        path: The file, which ends in `.pt2`.

    Raises:
        InputError: If the path ends otherwise, or the model cannot be traced for any batch size.
        RuntimeError: If the file computes something else when it is loaded.
    """
    if Path(path).suffix != ".pt2":
        raise InputError(f"expected a path that ends in .pt2, as torch.export.load wants it, got {path}")
    arguments = as_arguments(example_input)
    program = _export(model, arguments)
    with quiet(), beside(Path(path)) as part:
        torch.export.save(program.run_decompositions(_plain_operators()), part)
        loaded = torch.export.load(part).module()
        names = output_names(program)
        _verify(program, arguments, lambda inputs: dict(zip(names, output_tensors(loaded(*inputs)), strict=True)))


def _export(model: nn.Module, arguments: tuple[Tensor, ...]) -> ExportedProgram:
    """Trace a model in eval mode on the CPU, for batches of any size."""
    quantization = quantization_of(model)
    if quantization is not None and not all(
        isinstance(layer, IntegerLayer) for layer in quantization.rounding.layers.values()
    ):
        raise InputError(
            f"expected a float {type(model).__name__}, or one that holds integers, got one that rounds floats; pass "
            "integer_network(model), or dequantize(model)"
        )
    devices = {tensor.device.type for tensor in stored_tensors(model).values()}
    plain = model if devices <= {"cpu"} else copy_of(model).cpu()
    # A batch of one would be taken for a constant.
    example = noise_like([argument.cpu() for argument in arguments], max(2, len(arguments[0])))
    shapes = _batch_axes(plain, example)
    try:
        with evaluating(plain), torch.compiler.set_stance("force_eager"), quiet():
            return torch.export.export(plain, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        # torch has one class for all that a graph asks of sizes; only its text tells a constant from a condition.
        fixed = "; it takes the batch size for a constant: x.shape[0] is none, len(x) is" * (
            "specialized" in str(error)
        )
        raise InputError(
            f"expected {type(model).__name__}.forward to be traceable by torch.export for batches of any size, got "
            f"{type(error).__name__}: {_reason(error)}{fixed}"
        ) from error


def _batch_axes(model: nn.Module, arguments: Sequence[Tensor]) -> dict[str, dict[int, Dim] | None]:
    """Return the axis that may have any length, by name of an argument."""
    batch = Dim("batch")
    axes = [{0: batch} if each.ndim and len(each) == len(arguments[0]) else None for each in arguments]
    return dict(zip(_argument_names(model), axes, strict=False))


def _argument_names(model: nn.Module) -> list[str]:
    return list(inspect.signature(model.forward).parameters)


def _plain_operators() -> dict[Any, Callable[..., Tensor]]:
    """Return what stands for the operators of this package, of those of torch, to the bit."""

    def rounded(x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        zero = zero_point.to(torch.int32)
        return torch.clamp(torch.round(x / scale), low - zero, high - zero) * scale

    ops = torch.ops.lightning_prune
    return {ops.fake_quantize.default: rounded, ops.dequantize.default: scaled}


def _verify(program: ExportedProgram, arguments: Sequence[Tensor], compute: Run) -> None:
    for batch_size in _BATCH_SIZES:
        problem = first_difference(program, compute, noise_like([argument.cpu() for argument in arguments], batch_size))
        if problem:
            raise RuntimeError(
                f"the file was not written, since it computes something else for a batch of {batch_size}: {problem}"
            )


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Lend a name beside a file; what was written there takes its place, unless something went wrong."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep to itself what exporters say about their own steps."""
    names = ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
