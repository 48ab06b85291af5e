"""Which sparsity a group of coupled layers is pruned to."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from lightning_prune.coupling import Group
from lightning_prune.errors import InputError
from lightning_prune.masking import check_sparsity

Sparsity = float | Mapping[str, float]
"""One fraction of units for every layer, or one for each layer name pattern, of which the first that matches counts."""


def checked(sparsity: Sparsity) -> Sparsity:
    """Return `sparsity` if every fraction in it can be removed.

    Raises:
        InputError: If a fraction is not in [0, 1), or there is no pattern.
    """
    if not isinstance(sparsity, Mapping):
        return check_sparsity(sparsity)
    if not sparsity:
        raise InputError("expected sparsity to name at least one layer pattern, got none")
    return {pattern: check_sparsity(value, f"sparsity[{pattern}]") for pattern, value in sparsity.items()}


def targets(groups: list[Group], sparsity: Sparsity) -> list[float]:
    """Return the final sparsity of each group: the lowest that any of its layers is to have.

    Layers that no pattern matches are to have none, and a group is never pruned further than one of its layers allows.

    Args:
        groups: Groups of filters.
        sparsity: A fraction, or fractions by pattern; `*` stands for any characters, dots included.

    Raises:
        InputError: If there is nothing to prune, or a pattern matches no layer that can be pruned.
    """
    if not groups:
        raise InputError("expected a model with convolutions whose channels can be removed, found none")
    if not isinstance(sparsity, Mapping):
        return [sparsity] * len(groups)
    layers = sorted({layer for group in groups for layer in group.layers})
    for pattern in sparsity:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            some = ", ".join(layers[:8]) + (", ..." if len(layers) > 8 else "")
            raise InputError(f"expected sparsity[{pattern}] to match a prunable layer, got no match among {some}")
    found = [min(_first_match(layer, sparsity) for layer in group.layers) for group in groups]
    if not any(found) and any(sparsity.values()):
        raise InputError(
            f"expected sparsity to match all layers of at least one coupled group, got {dict(sparsity)}, whose layers "
            "are all coupled with layers that it does not match; match those too, or use residual='independent'"
        )
    return found


def _first_match(layer: str, sparsity: Mapping[str, float]) -> float:
    return next((value for pattern, value in sparsity.items() if fnmatchcase(layer, pattern)), 0.0)
