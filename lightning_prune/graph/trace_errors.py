"""Why a model cannot be traced, in one line that names the line of its code."""

import linecache
import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from lightning_prune.errors import InputError

_OF_NUMBERS = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)
"""What is raised where code asks for the numbers in a tensor to decide what to do."""

_NOT_OF_THE_MODEL = (Path(torch.__file__).parent, Path(__file__).parent)


@contextmanager
def untold() -> Iterator[None]:
    """Keep from the screen what `torch.export` tells of an error in dozens of lines, beside raising it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(before)


def refusal(model: nn.Module, arguments: Sequence[Tensor], error: Exception) -> InputError:
    """Return what is raised of a model that cannot be traced.

    Args:
        model: The model.
        arguments: What its `forward` was given, of any shape.
        error: What came of it.
    """
    place = _place(model, error)
    if isinstance(error, _OF_NUMBERS):
        return InputError(
            f"expected {type(model).__name__}.forward to do the same whatever the numbers in its tensors are, as what "
            f"traces it requires, got a decision that depends on them{place}; compute both ways and choose by "
            "torch.where, or prune single weights, for which nothing is traced"
        )
    reason = next((line for line in str(error).splitlines() if line.strip()), "").strip()
    shapes = ", ".join(str(tuple(argument.shape)) for argument in arguments)
    return InputError(
        f"expected {type(model).__name__}.forward to be traceable by torch.export with an example input of shape "
        f"{shapes}, got {type(error).__name__}{': ' * bool(reason)}{reason}{place}; pass an example_input that forward "
        "accepts"
    )


def _place(model: nn.Module, error: Exception) -> str:
    """Return the module and the line of code in which an error arose, as far as they are the model's own."""
    names = {id(module): name for name, module in model.named_modules()}
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if any(folder in Path(code.co_filename).parents for folder in _NOT_OF_THE_MODEL):
            continue
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        text = linecache.getline(code.co_filename, line).strip()
        if id(owner) in names and text:
            module = f"{names[id(owner)]} ({type(owner).__name__})" if names[id(owner)] else type(owner).__name__
            found = f" in {module}, line {line} of {Path(code.co_filename).name}, `{text}`"
    return found
