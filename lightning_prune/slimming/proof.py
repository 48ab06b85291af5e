"""Proof that a changed model still computes what it did: on the example input, and on noise of the same shape."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, as_arguments, evaluating, stored_tensors
from lightning_prune.slimming.surgery import Model, copy_of

Proof = list[tuple[tuple[Tensor, ...], list[Tensor]]]

TOLERANCE = 1e-4
"""Largest difference between the outputs of the changed and the original model, relative to the largest output.

Less than single precision is held to eight times the distance from 1 to the next number.
"""


def prove(model: nn.Module, example_input: ExampleInput) -> Proof:
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
        proof = [(arguments, _outputs(model, arguments)) for arguments in (example, noise)]
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"expected {type(model).__name__}.forward to run on the example input and on noise like it, got {reason}"
        ) from error
    proof = [(arguments, outputs) for arguments, outputs in proof if not any(out.isnan().any() for out in outputs)]
    if not proof:
        raise InputError(f"expected a {type(model).__name__} with finite outputs, got NaN: its weights have diverged")
    return proof


def _outputs(model: nn.Module, arguments: tuple[Tensor, ...]) -> list[Tensor]:
    with evaluating(model), _same_each_time(model), torch.compiler.set_stance("force_eager"), _full_precision():
        return [output for output in tree_leaves(model(*arguments)) if isinstance(output, Tensor)]


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


def twin(model: Model, proof: Proof) -> tuple[Model, Proof]:
    """Return a copy of a model whose weights are large enough to show every mistake, and what it computes.

    What is zero stays zero, so that the same channels do nothing. It computes in double precision where it can. A model
    of which no such copy works is returned itself, with its own proof.
    """
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32):
        other = copy_of(model)
        with torch.no_grad():
            for parameter in other.parameters():
                if parameter.is_floating_point():
                    values = torch.rand(parameter.shape, generator=generator) + 0.5
                    if parameter.ndim > 1:
                        fan_in = parameter.numel() / max(1, len(parameter))
                        values = torch.randn(parameter.shape, generator=generator) * (2 / max(1.0, fan_in)) ** 0.5
                    parameter.copy_(torch.where(parameter == 0, 0.0, values.to(parameter)))
        with suppress(Exception):  # code that sets the number format by itself, or overflows
            other = other.to(dtype)
            given = tuple(one.to(dtype) if one.is_floating_point() else one for one in proof[-1][0])
            outputs = _outputs(other, given)
            if all(output.isfinite().all() for output in outputs if output.is_floating_point()):
                return other, [(given, outputs)]
    return model, proof


@dataclass(frozen=True)
class Failure:
    """How a changed model fails."""

    module: str | None
    """The name of the module whose code raises an error, "" for the model's own; None if the outputs are others."""


def holds(proof: Proof, model: nn.Module) -> bool:
    """Return whether a model runs and gives the outputs in `proof` up to `TOLERANCE`."""
    return failure(proof, model) is None


def failure(proof: Proof, model: nn.Module) -> Failure | None:
    """Return how a model fails to give the outputs in `proof` up to `TOLERANCE`, None if it does not."""
    running: list[nn.Module] = []
    hooks = []
    for each in model.modules():
        hooks.append(each.register_forward_pre_hook(lambda module, arguments: running.append(module)))
        hooks.append(each.register_forward_hook(lambda module, arguments, output: running.remove(module)))
    try:
        for arguments, expected in proof:
            found = _outputs(model, arguments)
            if [output.shape for output in found] != [output.shape for output in expected]:
                return Failure(None)
            if not all(_close(output, reference) for output, reference in zip(found, expected, strict=True)):
                return Failure(None)
    except Exception:  # code of the model that relies on the old widths may fail in any way
        names = {id(module): name for name, module in model.named_modules()}
        return Failure(next((names[id(module)] for module in reversed(running) if id(module) in names), ""))
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _close(output: Tensor, expected: Tensor) -> bool:
    if not (expected.is_floating_point() or expected.is_complex()):
        return torch.equal(output, expected)
    finite = expected[expected.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 0.0
    tolerance = max(TOLERANCE, 8 * torch.finfo(expected.dtype).eps)
    return torch.allclose(output, expected, rtol=0.0, atol=tolerance * scale)
