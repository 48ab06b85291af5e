"""How a model is run for a while: in eval mode, or on one thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every submodule into eval mode, without gradients, and give each its own mode back on leaving."""
    training = [module for module in model.modules() if module.training]
    try:
        # Not `eval()`: modules override it, to merge weights for example, and the flags alone would not undo that.
        for module in training:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def one_thread() -> Iterator[None]:
    """Run many small operations on one thread: on a busy machine several would wait for each other in each of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
