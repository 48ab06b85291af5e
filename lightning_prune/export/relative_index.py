"""Where the entries of a sparse tensor are: by how many zeros lie between one and the next."""

import numpy as np
from numpy.typing import NDArray

from lightning_prune.export.huffman import Symbols

MOST_BITS = 10
"""Of a number of zeros."""

Integers = NDArray[np.int64]


def zeros_between(positions: Integers, size: int) -> Integers:
    """Return how many zeros lie in front of each entry, and behind the last one, `(n + 1,)`.

    Args:
        positions: `(n,)`, ascending.
        size: Number of elements, zeros included.
    """
    return np.diff(positions, prepend=-1, append=size) - 1


def to_gaps(zeros: Integers, bits: int) -> tuple[Symbols, NDArray[np.bool_]]:
    """Return for each entry how many zeros are skipped, and whether it is an entry, or a filler.

    More zeros than `2**bits - 1` are cut short by fillers: entries that are zero themselves. So are those behind the
    last entry, of which fewer than `2**bits` need none.

    Args:
        zeros: `(n + 1,)`; see `zeros_between`.
        bits: Of a number of zeros.

    Returns:
        `(m,)` numbers of zeros, and `(m,)`, True for an entry and False for a filler.

    Reference:
        Han, Mao, Dally, Deep Compression, 2016, arXiv:1510.00149, figure 2; the numbers stored are those of its code.

    >>> to_gaps(zeros_between(np.array([1, 4, 15]), 16), bits=3)[0].tolist()
    [1, 2, 7, 2]
    """
    fillers = zeros >> bits
    ends = np.cumsum(fillers[:-1] + 1)
    total = int(fillers.sum()) + len(ends)
    gaps, real = np.full(total, 2**bits - 1, np.uint16), np.zeros(total, np.bool_)
    real[ends - 1] = True
    gaps[ends - 1] = (zeros[:-1] & (2**bits - 1)).astype(np.uint16)
    return gaps, real


def to_positions(gaps: Symbols) -> Integers:
    """Return where the entries and fillers are, `(m,)`, given how many zeros come before each.

    >>> to_positions(np.array([1, 2, 7, 2], np.uint16)).tolist()
    [1, 4, 12, 15]
    """
    positions: Integers = np.cumsum(gaps.astype(np.int64) + 1) - 1
    return positions
