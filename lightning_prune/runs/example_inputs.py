"""What a module takes, in batches of any size: to trace it, and to measure what it costs."""

import os
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from lightning_prune.data import ImageData
from lightning_prune.errors import InputError
from lightning_prune.training import batch_input, given_input

Inputs = tuple[Tensor, ...]


def example_inputs(module: LightningModule, data: LightningDataModule) -> Inputs | None:
    """Return arguments of a module's `forward` for two samples, `(2, ...)` each, on the CPU.

    They are the module's `example_input_array`, or what the data gives, or else the first of a training batch.

    Args:
        module: Any one.
        data: Prepared and set up if its batches are needed.

    Returns:
        The arguments; None where `forward` does not take tensors as they stand in a batch.
    """
    own = given_input(module, None)
    if own is not None:
        return resized(own, 2)
    if isinstance(data, ImageData):
        return (data.example_input(2),)
    batch = _first_batch(data)
    try:
        return resized(batch_input(module, batch), 2)
    except InputError:
        return None


def take_example(module: LightningModule, example: Inputs | None) -> None:
    """Give a module an example of what it takes, unless it has one of its own.

    Args:
        module: Any one.
        example: Arguments of its `forward`, `(n, ...)` each; None where there is no such example.
    """
    if module.example_input_array is None and example is not None:
        module.example_input_array = example if len(example) > 1 else example[0]


def resized(inputs: Inputs, samples: int) -> Inputs:
    """Return a batch of so many samples, the same ones again where there are fewer.

    Args:
        inputs: `(n, ...)` each; what is of another length than the first is no batch, and stays.
        samples: Number of samples.
    """
    count = len(inputs[0]) if inputs[0].ndim else 0
    if count == 0:
        return inputs
    chosen = torch.arange(samples) % count
    return tuple(x[chosen] if x.ndim and len(x) == count else x for x in inputs)


def training_inputs(module: LightningModule, data: LightningDataModule) -> Iterator[Inputs]:
    """Yield arguments of a module's `forward`, `(n, ...)` each, from training batches as the module gets them.

    Raises:
        InputError: If `forward` does not take tensors as they stand in a batch.
    """
    for batch in _batches(data, "fit"):
        yield batch_input(module, batch)


def labelled_images(data: LightningDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of all test images, `(n, ...)`, and their classes, `(n,)`."""
    yield from _batches(data, "test")


def _first_batch(data: LightningDataModule) -> Any:
    """Return the first training batch as a module gets it; torch's random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        batch = next(_batches(data, "fit"), None)
    if batch is None:
        raise InputError("expected training data, got a loader without a batch")
    return batch


def _batches(data: LightningDataModule, stage: str) -> Iterator[Any]:
    """Yield the batches of a stage as a module gets them."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        data.prepare_data()
    data.setup(stage)
    for batch in data.train_dataloader() if stage == "fit" else data.test_dataloader():
        yield data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)
