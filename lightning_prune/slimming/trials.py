"""Channels cut out of a model as far as it still computes the same, which is found by trying."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.slimming.attribute_search import AttributeSearch
from lightning_prune.slimming.channels.coupling import Coupling
from lightning_prune.slimming.channels.removal import Removal, by_tensor, of_branches
from lightning_prune.slimming.proof import Reference, failure, same_outputs, with_random_weights
from lightning_prune.slimming.surgery import Model

Fixed = list[tuple[str, Tensor]]
"""Channels that have to stay, `(labels,)` bool, with the name of the code that relies on their number."""


@dataclass(frozen=True, eq=False)
class Trial(Generic[Model]):
    """What could be cut out of a model.

    Args:
        model: The smaller model.
        removal: What it has lost.
        fixed: The channels that it could not lose.
    """

    model: Model
    removal: Removal
    fixed: Fixed


def remove_what_works(
    model: Model, coupling: Coupling, removal: Removal, references: Sequence[Reference]
) -> Trial[Model]:
    """Cut channels that are zero out of a copy of a model, without those whose number the code of its modules fixes.

    Sizes that the code takes from attributes are changed.

    Args:
        model: The model.
        coupling: Its channels.
        removal: What is to go; some of the channels may have to stay.
        references: What the smaller model has to compute.

    Raises:
        InputError: If the model computes something else each time, or its copy does.
    """
    search = AttributeSearch(model, coupling)
    # Weights that damp what code computes with wrong sizes would hide it.
    counted = search.count(removal.channels)
    tried, evidence = with_random_weights(model, references) if counted else (model, references)
    small, removal, fixed = _keep_what_is_counted(search, tried, coupling, removal, evidence)
    if small is not None and tried is model and not search.count(removal.channels):
        return Trial(small, removal, fixed)
    search.spare(lambda: same_outputs(search.copy_without(tried, removal), evidence))
    small = search.copy_without(model, removal)
    if not same_outputs(small, references):
        kept = _kept_one_by_one(search, model, coupling, removal, references)
        fixed.append((type(model).__name__, kept))
        removal = removal.sparing(kept)
        small = search.copy_without(model, removal)
        if not same_outputs(small, references):
            raise InputError(f"expected a {type(model).__name__} whose copy computes what it does, got another result")
    return Trial(small, removal, fixed)


def _keep_what_is_counted(
    search: AttributeSearch, model: Model, coupling: Coupling, removal: Removal, references: Sequence[Reference]
) -> tuple[Model | None, Removal, Fixed]:
    """Try attributes, and let channels stay that code counts in spite of them, until a smaller model works.

    Returns:
        The smaller model, None if none works; what goes; and what had to stay.
    """
    fixed: Fixed = []
    while (failed := failure(small := search.copy_without(model, removal), references)) is not None:
        if search.try_next(failed, removal.channels):
            continue
        counted = search.counted(failed, removal.channels)
        if counted is None and not same_outputs(model, references):
            raise InputError(
                f"expected a {type(model).__name__} that always computes the same in eval mode, got other outputs for "
                "one input; it keeps state outside of its buffers, or draws numbers that torch.manual_seed does not fix"
            )
        if counted is None:
            counted = type(model).__name__, _kept_one_by_one(search, model, coupling, removal, references)
            if not counted[1].any():
                return None, removal, fixed
        fixed.append(counted)
        removal = removal.sparing(counted[1])
    return small, removal, fixed


def _kept_one_by_one(
    search: AttributeSearch, model: nn.Module, coupling: Coupling, removal: Removal, references: Sequence[Reference]
) -> Tensor:
    """Return `(labels,)` bool: the channels that have to stay, found by cutting ever fewer layers at once."""
    lost = Removal(of_branches(coupling, removal.whole), removal.whole)
    kept = torch.zeros_like(removal.channels)
    left = [[channels for _, channels in by_tensor(coupling, removal.sparing(lost.channels).channels)]]
    while left and left[-1]:
        layers = left.pop()
        attempt = Removal(torch.stack([lost.channels, *layers]).any(dim=0), removal.whole)
        if same_outputs(search.copy_without(model, attempt), references):
            lost = attempt
        elif len(layers) > 1:
            half = len(layers) // 2
            left += [layers[half:], layers[:half]]
        else:
            kept |= layers[0]
    return kept
