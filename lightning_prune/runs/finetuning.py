"""The second training of a run, of its slim model: the files that it begins with, and what it begins as."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from lightning_prune.callbacks import HeldZeros, InheritedMomentum, SlimWidths
from lightning_prune.pruning import nonzeros
from lightning_prune.reporting import RunFolder, macs
from lightning_prune.runs.scratch import epochs_of_same_compute, reinitialize
from lightning_prune.slimming import load_slim, slice_optimizer_state

Module = TypeVar("Module", bound=LightningModule)


def save_momentum(folder: RunFolder, module: LightningModule, kept: Mapping[str, Mapping[int, Tensor]]) -> None:
    """Write the momentum of a run's best checkpoint, whose weights its slim model has, cut to that model.

    Args:
        folder: With that checkpoint, which a run of a few batches to try things does not have.
        module: The masked model.
        kept: The positions left, `(kept,)`, along the dimensions of its tensors that have lost some; see `Slimmed`.

    Raises:
        InputError: If the optimizer is not one of all parameters, or keeps what cannot be cut.
    """
    best = folder.saved_checkpoint
    assert best is not None
    (state,) = torch.load(best, map_location="cpu", weights_only=True)["optimizer_states"]
    states, stored = slice_optimizer_state(state, dict(module.named_parameters()), kept), module.state_dict()
    # What quantizers learn is no part of the network, and is learned anew.
    torch.save({name: known for name, known in states.items() if name in stored}, folder.momentum)


def start_finetuning(
    build: Callable[[], Module], folder: RunFolder, *, scratch: bool, momentum: bool
) -> tuple[Module, list[Callback]]:
    """Return the slim model of a run as its second training begins, and the callbacks by which it goes on as it was.

    What is zero in it stays so, from random weights in the same places, and its checkpoints are files of slim models.

    Args:
        build: Builds the dense model, with the same random weights in each process.
        folder: Where `slim.pt` is.
        scratch: Whether it begins with random weights.
        momentum: Whether its optimizer begins with what `save_momentum` has written.
    """
    module = load_slim(build(), folder.slim)
    callbacks: list[Callback] = [HeldZeros(nonzeros(module)), SlimWidths()]
    if scratch:
        reinitialize(module, build())
    if momentum:
        callbacks.append(InheritedMomentum(torch.load(folder.momentum, weights_only=True)))
    return module, callbacks


def affordable_epochs(
    build: Callable[[], Module],
    folder: RunFolder,
    example_input: tuple[Tensor, ...],
    epochs: int,
    longest: float | None,
) -> int:
    """Return for how many epochs the slim model of a run trains with the compute that the dense one has had.

    Args:
        build: Builds the dense model.
        folder: Where `slim.pt` is.
        example_input: What its `forward` takes, of any shape.
        epochs: See `epochs_of_same_compute`, as for `longest`.
        longest: As there.
    """
    dense, slim = build(), load_slim(build(), folder.slim)
    return epochs_of_same_compute(epochs, macs(dense, example_input), macs(slim, example_input), longest)
