"""From a masked model to a smaller one with the same outputs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, holder, stored_tensors, suspended
from lightning_prune.slimming.channels.blocks import BlockOrBranch
from lightning_prune.slimming.channels.coupling import Coupling, couple
from lightning_prune.slimming.proof import Proof, failure, holds, prove, twin
from lightning_prune.slimming.size_attributes import StatedSizes
from lightning_prune.slimming.surgery import Model, cut

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
    return slimmed(model, example_input).model


@dataclass(frozen=True, eq=False)
class Slimmed(Generic[Model]):
    """A smaller model, and what of the tensors of the large one it has."""

    model: Model
    kept: dict[str, dict[int, Tensor]]
    """By name and dimension of a stored tensor the positions that stay, for tensors that have lost some.

    Of a tensor that is gone as a whole, none stay along dimension 0.
    """


def slimmed(model: Model, example_input: ExampleInput) -> Slimmed[Model]:
    """Return what `slim` does, and where its tensors come from; arguments and errors are the same."""
    with suspended():
        return _slim(model, example_input)


def _slim(model: Model, example_input: ExampleInput) -> Slimmed[Model]:
    coupling = couple(model, example_input)
    proof = prove(model, example_input)
    silent = coupling.silent(stored_tensors(model))
    removed = coupling.removable(silent)
    gone = coupling.leaving(silent, removed)
    if gone and not holds(proof, cut(model, coupling, removed, gone)):
        gone = _remove_what_works(model, coupling, gone, proof)
        removed = coupling.removable(gone)
        gone = coupling.leaving(gone, removed)
    found = cut_what_works(model, coupling, removed, gone, proof)
    removed = found.removed
    for code, channels in found.fixed:
        layers = ", ".join(holder(name) for name, _ in coupling.by_tensor(channels))
        log.warning("slim kept the masked channels of %s: the code of %s relies on their number", layers, code)
    for one in silent:
        if not one.modules:
            log.warning("slim kept the masked %s %s: code outside of its layers computes with it", one.kind, one.name)
    for reason, counts in coupling.zero_but_kept(model, removed, gone).items():
        named = ", ".join(f"{layer} ({count})" for layer, count in counts)
        log.warning("slim kept zero filters that %s: %s", reason, named)
    if coupling.unread and bool(removed.any()):
        log.warning("slim left as they are, because forward does not read them: %s", ", ".join(coupling.unread))
    return Slimmed(found.model, coupling.keep(removed, gone))


def _remove_what_works(
    model: nn.Module, coupling: Coupling, gone: list[BlockOrBranch], proof: Proof
) -> list[BlockOrBranch]:
    """Return those of the structures that can be removed, one after the other, without breaking the outputs."""
    works: list[BlockOrBranch] = []
    for one in gone:
        attempt = [*works, one]
        if holds(proof, cut(model, coupling, coupling.inside(attempt), attempt)):
            works = attempt
        else:
            log.warning("slim kept the masked %s %s: the model's code relies on its shapes", one.kind, one.name)
    return works


@dataclass(frozen=True, eq=False)
class Cut(Generic[Model]):
    """What could be cut out of a model."""

    model: Model
    """The smaller model."""
    removed: Tensor
    """`(labels,)` bool, the channels that it has lost."""
    fixed: list[tuple[str, Tensor]]
    """The channels that it could not lose, with the name of the code that relies on their number."""


def cut_what_works(
    model: Model, coupling: Coupling, removed: Tensor, gone: Sequence[BlockOrBranch], proof: Proof
) -> Cut[Model]:
    """Cut channels that are zero out of a copy of a model, without those whose number the code of its modules fixes.

    Sizes that the code takes from attributes are changed.

    Args:
        model: The model.
        coupling: Its channels.
        removed: `(labels,)` bool, the channels that are to go.
        gone: The structures that go.
        proof: What the smaller model has to compute.

    Raises:
        InputError: If the model computes something else each time, or its copy does.
    """
    sizes = StatedSizes(model, coupling)
    # Weights that damp what code computes with wrong sizes would hide it.
    tried, evidence = twin(model, proof) if sizes.count(removed) else (model, proof)
    fixed: list[tuple[str, Tensor]] = []
    while (failed := failure(evidence, small := sizes.cut(tried, removed, gone))) is not None:
        if sizes.try_next(failed, removed):
            continue
        counted = sizes.counted(failed, removed)
        if counted is None and not holds(evidence, tried):
            raise InputError(
                f"expected a {type(model).__name__} that always computes the same in eval mode, got other outputs for "
                "one input; it keeps state outside of its buffers, or draws numbers that torch.manual_seed does not fix"
            )
        if counted is None:
            kept = _kept_one_by_one(tried, coupling, removed, gone, evidence, sizes)
            counted = type(model).__name__, kept
            if not kept.any():
                break
        fixed.append(counted)
        removed = removed & ~counted[1]
    if failed is None and tried is model and not sizes.count(removed):
        return Cut(small, removed, fixed)
    sizes.spare(lambda: holds(evidence, sizes.cut(tried, removed, gone)))
    small = sizes.cut(model, removed, gone)
    if not holds(proof, small):
        kept = _kept_one_by_one(model, coupling, removed, gone, proof, sizes)
        fixed.append((type(model).__name__, kept))
        removed = removed & ~kept
        small = sizes.cut(model, removed, gone)
        if not holds(proof, small):
            raise InputError(f"expected a {type(model).__name__} whose copy computes what it does, got another result")
    return Cut(small, removed, fixed)


def _kept_one_by_one(
    model: nn.Module,
    coupling: Coupling,
    removed: Tensor,
    gone: Sequence[BlockOrBranch],
    proof: Proof,
    sizes: StatedSizes,
) -> Tensor:
    """Return `(labels,)` bool: the `removed` channels that have to stay, found by cutting ever fewer layers at once."""
    lost = coupling.inside(gone)
    kept = torch.zeros_like(removed)
    left = [[channels for _, channels in coupling.by_tensor(removed & ~lost)]]
    while left and left[-1]:
        layers = left.pop()
        attempt = torch.stack([lost, *layers]).any(dim=0)
        if holds(proof, sizes.cut(model, attempt, gone)):
            lost = attempt
        elif len(layers) > 1:
            half = len(layers) // 2
            left += [layers[half:], layers[:half]]
        else:
            kept |= layers[0]
    return kept
