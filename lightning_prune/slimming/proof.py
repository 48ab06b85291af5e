"""Proof that a changed model still computes what it did: on the example input, and on noise of the same shape."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, as_arguments, evaluating, stored_tensors
from lightning_prune.slimming.surgery import Model, copy_of

TOLERANCE = 1e-4
"""Largest difference between the outputs of the changed and the original model, relative to the largest output.

Less than single precision is held to eight times the distance from 1 to the next number.
"""


@dataclass(frozen=True, eq=False)
class Reference:
    """What `forward` takes, and the tensors that the original model makes of it."""

    inputs: tuple[Tensor, ...]
    outputs: list[Tensor]


@dataclass(frozen=True)
class Failure:
    """How a changed model fails."""

    module: str | None
    """The name of the module whose code raises an error, "" for the model's own; None if the outputs are others."""


class _CodeFailed(Exception):
    """The code of a model raises an error, which is its cause."""


def reference_outputs(model: nn.Module, example_input: ExampleInput) -> list[Reference]:
    """Return the example input and noise of the same shape, each with what the model makes of it.

    Raises:
        InputError: If all outputs hold NaN, which compares with nothing, or `forward` does not run on such inputs.
    """
    device = next(iter(stored_tensors(model).values())).device
    example = tuple(argument.to(device) for argument in as_arguments(example_input))
    generator = torch.Generator().manual_seed(0)
    noise = tuple(
        torch.randn(argument.shape, generator=generator).to(argument) if argument.is_floating_point() else argument
        for argument in example
    )
    try:
        references = [Reference(inputs, _outputs(model, inputs)) for inputs in (example, noise)]
    except _CodeFailed as failed:
        error = failed.__cause__
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"expected {type(model).__name__}.forward to run on the example input and on noise like it, got {reason}"
        ) from error
    references = [one for one in references if not any(output.isnan().any() for output in one.outputs)]
    if not references:
        raise InputError(f"expected a {type(model).__name__} with finite outputs, got NaN: its weights have diverged")
    return references


def same_outputs(model: nn.Module, references: Sequence[Reference]) -> bool:
    """Return whether a model runs and gives the outputs of another up to `TOLERANCE`."""
    return failure(model, references) is None


def failure(model: nn.Module, references: Sequence[Reference]) -> Failure | None:
    """Return how a model fails to give the outputs of another up to `TOLERANCE`, None if it does not."""
    running: list[nn.Module] = []
    hooks = []
    for each in model.modules():
        hooks.append(each.register_forward_pre_hook(lambda module, arguments: running.append(module)))
        hooks.append(each.register_forward_hook(lambda module, arguments, output: running.remove(module)))
    try:
        for reference in references:
            if not _close(_outputs(model, reference.inputs), reference.outputs):
                return Failure(None)
    except _CodeFailed:  # code that relies on the old widths may fail in any way
        names = {id(module): name for name, module in model.named_modules()}
        return Failure(next((names[id(module)] for module in reversed(running) if id(module) in names), ""))
    finally:
        for hook in hooks:
            hook.remove()
    return None


def with_random_weights(model: Model, references: Sequence[Reference]) -> tuple[Model, Sequence[Reference]]:
    """Return a copy of a model whose weights are large enough to show every mistake, and what it computes.

    What is zero stays zero, so that the same channels do nothing. It computes in double precision where it can. A model
    of which no such copy works is returned itself, with its own outputs.
    """
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32):
        other = copy_of(model)
        with torch.no_grad():
            for parameter in other.parameters():
                if parameter.is_floating_point():
                    parameter.copy_(torch.where(parameter == 0, 0.0, _random_like(parameter, generator)))
        try:
            with _code_of_a_model():
                inputs = tuple(one.to(dtype) if one.is_floating_point() else one for one in references[-1].inputs)
                other = other.to(dtype)
            outputs = _outputs(other, inputs)
        except _CodeFailed:  # it sets the number format by itself, or the device has no such numbers
            continue
        if all(output.isfinite().all() for output in outputs if output.is_floating_point()):
            return other, [Reference(inputs, outputs)]
    return model, references


def _random_like(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Return numbers for a parameter, of its shape: those of vectors around 1, those of matrices He-initialized."""
    values = torch.rand(parameter.shape, generator=generator) + 0.5
    if parameter.ndim > 1:
        fan_in = parameter.numel() / max(1, len(parameter))
        values = torch.randn(parameter.shape, generator=generator) * (2 / max(1.0, fan_in)) ** 0.5
    return values.to(parameter)


# Running a model ------------------------------------------------------------------------------------------------------


def _outputs(model: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the tensors that a model gives.

    Raises:
        _CodeFailed: If its code raises an error.
    """
    eagerly = torch.compiler.set_stance("force_eager")
    with _code_of_a_model(), evaluating(model), _same_each_time(model), eagerly, _full_precision():
        return [output for output in tree_leaves(model(*arguments)) if isinstance(output, Tensor)]


@contextmanager
def _code_of_a_model() -> Iterator[None]:
    """Tell errors of a model's code, which may be any, from our own."""
    try:
        yield
    except Exception as error:
        raise _CodeFailed from error


@contextmanager
def _same_each_time(model: nn.Module) -> Iterator[None]:
    """Let `forward` draw the same random numbers every time, and put back the buffers that it writes to."""
    before = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        for buffer, version, values in before:
            if buffer._version != version:
                buffer.copy_(values)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Keep GPUs from rounding float32 to TF32, which they may do for one width of a layer and not for another."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    allowed = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = allowed


def _close(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether tensors are those expected, up to `TOLERANCE`."""
    if [(one.shape, one.dtype) for one in outputs] != [(one.shape, one.dtype) for one in expected]:
        return False
    return all(_close_to(one, other) for one, other in zip(outputs, expected, strict=True))


def _close_to(output: Tensor, expected: Tensor) -> bool:
    if not (expected.is_floating_point() or expected.is_complex()):
        return torch.equal(output, expected)
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    tolerance = max(TOLERANCE, 8 * torch.finfo(expected.dtype).eps)
    return torch.allclose(output, expected, rtol=0.0, atol=tolerance * scale)
