"""One way to look inside a model: its `torch.export` graph, taken in eval mode and without changing the model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from lightning_prune.errors import InputError
from lightning_prune.graph.run_modes import evaluating
from lightning_prune.graph.stored import stored_tensors
from lightning_prune.graph.trace_errors import refusal, untold

ExampleInput = Tensor | tuple[Tensor, ...]


def as_arguments(example_input: ExampleInput) -> tuple[Tensor, ...]:
    """Return the positional arguments of `forward` that an example input stands for.

    Args:
        example_input: One tensor, of any shape, or a tuple of the tensors that `forward` takes in order.

    Raises:
        InputError: If it is anything else.
    """
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    if not arguments or not all(isinstance(argument, Tensor) for argument in arguments):
        kinds = ", ".join(type(argument).__name__ for argument in arguments) or "an empty tuple"
        raise InputError(f"expected example_input to be a tensor or a tuple of tensors, got {kinds}")
    return arguments


@contextmanager
def _only_tensors(model: nn.Module) -> Iterator[None]:
    """Let `forward` give the tensors among its outputs, since export refuses objects that it does not know."""
    forward, own = model.forward, vars(model).get("forward")

    @wraps(forward)
    def tensors(*arguments: Any, **keywords: Any) -> list[Tensor]:
        return [output for output in tree_leaves(forward(*arguments, **keywords)) if isinstance(output, Tensor)]

    vars(model)["forward"] = tensors
    try:
        yield
    finally:
        del vars(model)["forward"]
        if own is not None:
            vars(model)["forward"] = own


def trace(model: nn.Module, example_input: ExampleInput) -> ExportedProgram:
    """Trace `model` in eval mode into a graph of ATen operators.

    Compiled submodules are traced as the eager code that they were made from.

    Raises:
        InputError: If `forward` does not run on the example input, or cannot be traced.
    """
    arguments = as_arguments(example_input)
    device = next((tensor.device for tensor in stored_tensors(model).values()), torch.device("cpu"))
    try:
        with (
            evaluating(model),
            _only_tensors(model),
            torch.compiler.set_stance("force_eager"),
            warnings.catch_warnings(),
            untold(),
        ):
            warnings.simplefilter("ignore")  # export warns of what modules do to themselves, and undoes it
            return torch.export.export(model, tuple(argument.to(device) for argument in arguments), strict=False)
    except Exception as error:
        raise refusal(model, arguments, error) from error
