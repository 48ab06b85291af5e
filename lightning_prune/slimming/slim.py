"""From a masked model to a smaller one with the same outputs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from torch import nn

from lightning_prune.graph import ExampleInput, as_arguments, holder, stored_tensors, suspended
from lightning_prune.slimming.channels.blocks import Structure
from lightning_prune.slimming.channels.coupling import Coupling, ZeroTerms, follow_channels
from lightning_prune.slimming.channels.removal import (
    Removal,
    by_tensor,
    of_branches,
    removable,
    silent_wholes,
    zero_but_kept,
)
from lightning_prune.slimming.channels.sizes import Kept, kept_positions
from lightning_prune.slimming.proof import Reference, reference_outputs, same_outputs
from lightning_prune.slimming.surgery import Model, copy_without
from lightning_prune.slimming.traced_model import TracedModel
from lightning_prune.slimming.trials import Trial, remove_what_works

log = logging.getLogger(__name__)


def slim(model: Model, example_input: ExampleInput) -> Model:
    """Return a copy of `model` without the channels, blocks and branches that do nothing, proven to compute the same.

    A channel goes when it is exactly zero wherever a layer reads it: its filter, bias and batch-norm scale and shift
    are zero, in every layer that it is coupled with. Channels that the model's code fixes (its outputs, and what
    enters an operator that cannot be followed) stay; the log names them. A residual block whose last scale and shift
    are zero becomes its shortcut, and a branch of which that is true leaves its concatenation, with all their layers.
    What is proven is what runs: `forward` in eval mode, with inputs of this shape. Of a quantized model it is the float
    one; the copy is quantized alike, with the same ranges.

    Args:
        model: A masked model. It is not changed.
        example_input: A tensor or a tuple of tensors that `forward` takes.

    Returns:
        A smaller model of the same class, on the same device.

    Raises:
        InputError: If the model cannot be traced with the example input, or gives NaN or something else each time, of
            which nothing can be proven.
    """
    return slimmed(model, TracedModel(model, as_arguments(example_input))).model


@dataclass(frozen=True, eq=False)
class Slimmed(Generic[Model]):
    """A smaller model, and what of the tensors of the large one it has."""

    model: Model
    kept: Kept


def slimmed(model: Model, traced: TracedModel) -> Slimmed[Model]:
    """Return what `slim` does, and where its tensors come from; errors are the same.

    Args:
        model: A masked model. It is not changed.
        traced: The same model, or one of which it is a copy; it may have been traced before anything was masked.
    """
    with suspended():
        coupling, zero = follow_channels(model, traced.program)
        references = reference_outputs(model, traced.arguments)
        trial = _tried(model, coupling, zero, references)
        _warn_of_what_stays(model, coupling, zero, trial)
        return Slimmed(trial.model, kept_positions(coupling, trial.removal))


def _tried(model: Model, coupling: Coupling, zero: ZeroTerms, references: Sequence[Reference]) -> Trial[Model]:
    """Return the model without what is zero, as far as it can go."""
    removal = removable(coupling, zero, silent_wholes(coupling, stored_tensors(model)))
    if removal.whole and not same_outputs(copy_without(model, coupling, removal), references):
        removal = removable(coupling, zero, _wholes_that_can_go(model, coupling, removal.whole, references))
    return remove_what_works(model, coupling, removal, references)


def _wholes_that_can_go(
    model: nn.Module, coupling: Coupling, whole: Sequence[Structure], references: Sequence[Reference]
) -> list[Structure]:
    """Return the blocks and branches that can be removed, one after the other, without breaking the outputs."""
    works: list[Structure] = []
    for one in whole:
        attempt = (*works, one)
        removal = Removal(of_branches(coupling, attempt), attempt)
        if same_outputs(copy_without(model, coupling, removal), references):
            works.append(one)
        else:
            log.warning("slim kept the masked %s %s: the model's code relies on its shapes", one.kind, one.name)
    return works


def _warn_of_what_stays(model: nn.Module, coupling: Coupling, zero: ZeroTerms, trial: Trial[Model]) -> None:
    """Log what is masked and stays, and why."""
    for code, channels in trial.fixed:
        layers = ", ".join(holder(name) for name, _ in by_tensor(coupling, channels))
        log.warning("slim kept the masked channels of %s: the code of %s relies on their number", layers, code)
    for one in silent_wholes(coupling, stored_tensors(model)):
        if not one.modules:
            log.warning("slim kept the masked %s %s: code outside of its layers computes with it", one.kind, one.name)
    for reason, counts in zero_but_kept(coupling, zero, model, trial.removal).items():
        named = ", ".join(f"{layer} ({count})" for layer, count in counts)
        log.warning("slim kept zero filters that %s: %s", reason, named)
    if coupling.unread and bool(trial.removal.channels.any()):
        log.warning("slim left as they are, because forward does not read them: %s", ", ".join(coupling.unread))
