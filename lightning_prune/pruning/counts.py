"""How many of so many units go, and how many stay: exact counts, where a product of floats is not."""

import math
from collections.abc import Sequence
from typing import Literal

from lightning_prune.arguments import number
from lightning_prune.errors import InputError

Rounding = Literal["floor", "round"]
"""How a number of units is rounded: to the nearest, of two the even one, or down as in the papers on SFP."""


def check_sparsity(sparsity: float, name: str = "sparsity") -> float:
    """Return `sparsity` if it is a fraction of units that can be removed.

    Raises:
        InputError: If it is not a number in [0, 1).
    """
    return float(number(name, sparsity, "[0, 1)"))


def count(n_units: int, sparsity: float, rounding: Rounding = "round") -> int:
    """Return how many of `n_units` a sparsity removes, never all of them.

    Args:
        n_units: Number of units.
        sparsity: Fraction of units, in [0, 1).
        rounding: See `Rounding`.

    >>> [count(n, s, "floor") for n, s in ((10, 0.1), (16, 0.3), (20, 0.2), (32, 0.3), (64, 0.4))]
    [1, 4, 4, 9, 25]
    """
    wanted = n_units * sparsity
    nearest = math.floor(wanted + 1e-9) if rounding == "floor" else round(wanted)
    return max(0, min(nearest, n_units - 1))


def nearest_width(widths: Sequence[int] | None, kept: int, least: int = 1) -> int:
    """Return how many units stay where `kept` were to: of the numbers that may, the nearest, of two the larger.

    Args:
        widths: How many may stay, ascending, up to all; None if any number may.
        kept: Number of units.
        least: Number of units that stay at least, no more than there are.

    >>> [nearest_width([8, 16, 20], kept) for kept in (1, 11, 12, 17, 18)]
    [8, 8, 16, 16, 20]
    """
    if widths is None:
        return max(kept, least)
    return min((width for width in widths if width >= least), key=lambda width: (abs(width - kept), -width))


def kept_at_least(size: int, floor: float) -> int:
    """Return how many of `size` units stay at least, at least one, when a fraction `floor` does."""
    return max(1, math.ceil(floor * size - 1e-9))


def check_floor(sizes: Sequence[int], free: Sequence[int], sparsity: float, floor: float) -> None:
    """Refuse a sparsity that takes more units than layers may lose.

    Args:
        sizes: Number of units of each layer.
        free: Number of units that may go in each layer.
        sparsity: Fraction of all units that go, in [0, 1), as far as they may.
        floor: Fraction of its units that every layer keeps, in [0, 1), at least one.

    Raises:
        InputError: If it is such.
    """
    room = sum(min(may_go, size - kept_at_least(size, floor)) for may_go, size in zip(free, sizes, strict=True))
    if min(count(sum(sizes), sparsity), sum(free)) > room:
        raise InputError(
            f"expected sparsity of at most {room / sum(sizes):.4f}, so that every layer keeps a fraction "
            f"floor={floor} of its units, got {sparsity:.4f}; lower the sparsity or the floor"
        )
