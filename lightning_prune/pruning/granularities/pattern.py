"""Patterns: every 3x3 kernel keeps the entries of one of a few shapes (PCONV, PatDNN)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prune.arguments import items, whole_number
from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.granularity import Granularity

SCP4 = ((1, 3, 4, 5), (1, 3, 4, 7), (3, 4, 5, 7), (1, 4, 5, 7))
"""The patterns of PCONV: the centre and three of its four neighbours; positions 0 to 8 in row-major order."""


class Histogram(NamedTuple):
    """How many kernels have which shape."""

    kernels: list[int]
    """Kernels of each pattern; one whose non-zeros fit several counts for the first."""

    removed: int
    """Kernels without a non-zero."""

    others: int
    """Kernels that fit no pattern."""


@dataclass(frozen=True)
class Pattern(Granularity):
    """Cut 3x3 kernels into single entries, of which each kernel keeps those of its best pattern.

    The best pattern has the largest sum of squared scores: with the magnitude as criterion, the kernel is projected
    on the nearest one of that shape. Of equal sums the first pattern is taken.

    Args:
        patterns: Positions, 0 to 8 in row-major order, that a kernel may keep; all of one length.

    Raises:
        InputError: If there is no pattern, positions are no such numbers or repeat, or lengths differ.

    Reference:
        Ma et al., PCONV: The Missing but Desirable Sparsity in DNN Weight Pruning for Real-time Execution on Mobile
        Devices, 2020, arXiv:1909.05073.

    >>> scores = torch.tensor([0.1, 0.9, 0.2, 0.4, 0.05, 0.6, 0.0, 0.3, 1.2])
    >>> Pattern().removable(scores, (1, 1, 3, 3)).view(3, 3).int().tolist()
    [[1, 0, 1], [0, 0, 0], [1, 1, 1]]
    """

    patterns: Sequence[Sequence[int]] = SCP4

    def __post_init__(self) -> None:
        if not items("patterns", self.patterns, "patterns such as (1, 3, 4, 5)"):
            raise InputError("expected at least one pattern, got none")
        for pattern in self.patterns:
            for position in items("a pattern", pattern, "positions in 0..8"):
                whole_number("a position of a pattern", position, least=0, most=8)
            length = len(self.patterns[0])
            if not len(set(pattern)) == len(pattern) == length or length in (0, 9):
                raise InputError(
                    f"expected patterns of 1 to 8 different positions in 0..8, all of one length, got {list(pattern)}"
                )

    @property
    def sparsity(self) -> float:
        """The sparsity once every kernel has its pattern."""
        return 1 - len(self.patterns[0]) / 9

    def tile(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the size of one entry.

        Raises:
            InputError: If the kernels are not 3x3.
        """
        if not _is_3x3(shape):
            raise InputError(f"expected 3x3 kernels for patterns, got shape {tuple(shape)}: leave the layer out")
        return (1, 1, 1, 1)

    def removable(self, scores: Tensor, shape: Sequence[int]) -> Tensor:
        """Return `(n_units,)` bool: what the kernels' best patterns leave out.

        A pattern with an entry that is gone already is no candidate, unless every pattern has one.
        """
        kernels = scores.view(-1, 9)
        gone = kernels == -torch.inf
        left = kernels.masked_fill(gone, 0)
        left /= left.abs().amax(1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)  # else tiny squares vanish
        squares = left * left.abs()  # with the sign, so that negative scores stay the lowest
        positions = [list(pattern) for pattern in self.patterns]
        sums = torch.stack([squares[:, pattern].sum(1) for pattern in positions], 1)
        blocked = torch.stack([gone[:, pattern].any(1) for pattern in positions], 1)
        best = sums.masked_fill_(blocked & ~blocked.all(1, keepdim=True), -torch.inf).argmax(1)
        outside = torch.ones(len(positions), 9, dtype=torch.bool)
        outside.scatter_(1, torch.tensor(positions), False)
        return outside.to(scores.device)[best].logical_or_(gone).view(-1)

    def histogram(self, weights: Iterable[Tensor]) -> Histogram:
        """Return how many of the weights' 3x3 kernels have which pattern, or none; other weights do not count.

        Args:
            weights: `(out, in, 3, 3)` weights, pruned entries zero.
        """
        codes = [sum(1 << position for position in pattern) for pattern in self.patterns]
        counts, removed, others = [0] * len(codes), 0, 0
        for support, number in enumerate(_supports(kernels != 0 for kernels in _kernels(weights))):
            fitting = [index for index, code in enumerate(codes) if support & ~code == 0]
            if support == 0:
                removed += number
            elif fitting:
                counts[fitting[0]] += number
            else:
                others += number
        return Histogram(counts, removed, others)


def mined(weights: Iterable[Tensor], k: int = 8) -> Pattern:
    """Return the patterns most frequent in trained weights (PatDNN).

    The natural pattern of a 3x3 kernel is its centre and the three largest of its other entries, of equal ones the
    first. Of equally frequent patterns the one with the lower positions comes first.

    Args:
        weights: Of a trained model, of any shape; only 3x3 kernels count, and of those only what is not all zero.
        k: Patterns to take, 1 to 56; if fewer occur, all of them.

    Raises:
        InputError: If `k` is not in 1..56, or no weight has 3x3 kernels.

    Reference:
        Niu et al., PatDNN: Achieving Real-Time DNN Execution on Mobile Devices with Pattern-based Weight Pruning,
        2020, arXiv:2001.00138.
    """
    whole_number("k, the patterns to take of the 56 with a centre,", k, most=56)
    counts = _supports(_natural(kernels[kernels.any(1)]) for kernels in _kernels(weights))
    found = {tuple(p for p in range(9) if support >> p & 1): number for support, number in enumerate(counts) if number}
    if not found:
        raise InputError("expected weights with 3x3 kernels that are not zero to find patterns in, got none")
    return Pattern(tuple(sorted(found, key=lambda pattern: (-found[pattern], pattern))[:k]))


def _is_3x3(shape: Sequence[int]) -> bool:
    return tuple(shape[2:]) == (3, 3)


def _kernels(weights: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield `(n_kernels, 9)` of each weight that has 3x3 kernels."""
    return (weight.detach().reshape(-1, 9) for weight in weights if _is_3x3(weight.shape))


def _natural(kernels: Tensor) -> Tensor:
    """Return the natural patterns of `(n_kernels, 9)` weights as bool of that shape."""
    sizes = kernels.abs()
    sizes[:, 4] = torch.inf
    order = sizes.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(kernels, dtype=torch.bool).scatter_(1, order[:, :4], True)


def _supports(kept: Iterable[Tensor]) -> list[int]:
    """Return how often each of the 512 sets of positions occurs in `(n_kernels, 9)` bools, bit p for position p."""
    total = torch.zeros(512, dtype=torch.long)
    for kernels in kept:
        bits = torch.tensor([1 << position for position in range(9)], dtype=torch.int16, device=kernels.device)
        total += (kernels * bits).sum(1).bincount(minlength=512).cpu()
    counts: list[int] = total.tolist()
    return counts
