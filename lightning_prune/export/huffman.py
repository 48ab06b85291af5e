"""Canonical Huffman codes of at most 15 bits: a file needs their lengths alone."""

import heapq
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MOST_BITS = 15
"""Of a code."""

Bytes = NDArray[np.uint8]
Symbols = NDArray[np.uint16]

_WRITTEN = 2**18
"""Symbols written together."""

_READ = 2**16
"""Bits read together: few enough for what is known of them to stay in a processor's cache."""

_DOUBLINGS = 3
"""A reader steps from every eighth symbol to the next, and finds those between all at once."""

_MARGIN = 2**_DOUBLINGS * MOST_BITS // 8 + 4
"""Bytes behind those read together that their last symbols may reach into."""


def code_lengths(counts: NDArray[np.int64]) -> Bytes:
    """Return the lengths of the codes that make a text shortest, in bits.

    Args:
        counts: `(n,)`, how often each symbol occurs; one that does not has no code, of length 0.

    Reference:
        Huffman, A Method for the Construction of Minimum-Redundancy Codes, 1952; with a limit of the length, Larmore
        and Hirschberg, A Fast Algorithm for Optimal Length-Limited Huffman Codes, 1990 (package-merge).

    >>> code_lengths(np.array([50, 20, 15, 0, 10, 5])).tolist()
    [1, 2, 3, 0, 4, 4]
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(used) == 1:
        lengths[used] = 1
    elif len(used):
        depths = _depths(counts[used].tolist())
        lengths[used] = depths if max(depths) <= MOST_BITS else _limited(counts[used])
    return lengths


def _depths(counts: list[int]) -> list[int]:
    """Return the depths of the leaves of a Huffman tree."""
    heap = [(count, leaf) for leaf, count in enumerate(counts)]
    heapq.heapify(heap)
    parents = [0] * (2 * len(counts) - 1)
    for node in range(len(counts), len(parents)):
        first, one = heapq.heappop(heap)
        second, other = heap[0]
        parents[one] = parents[other] = node
        heapq.heapreplace(heap, (first + second, node))
    depths = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[: len(counts)]


def _limited(counts: NDArray[np.int64]) -> Bytes:
    """Return the lengths of the best codes of at most `MOST_BITS`, by package-merge."""
    order = counts.argsort(kind="stable")
    leaves = [(int(counts[leaf]), np.eye(1, len(counts), leaf, np.uint8)[0]) for leaf in order]
    packages = leaves
    for _ in range(MOST_BITS - 1):
        pairs = zip(packages[::2], packages[1::2], strict=False)
        merged = [(one + other, some + more) for (one, some), (other, more) in pairs]
        packages = sorted(leaves + merged, key=lambda package: package[0])
    chosen: Bytes = np.sum([some for _, some in packages[: 2 * len(counts) - 2]], axis=0).astype(np.uint8)
    return chosen


def is_code(lengths: Bytes) -> bool:
    """Return whether these are lengths of codes that fill the tree, or of one code alone."""
    used = lengths[lengths > 0].astype(np.int64)
    if len(used) < 2:
        return bool((used == 1).all())
    return bool(used.max() <= MOST_BITS and (1 << (MOST_BITS - used)).sum() == 1 << MOST_BITS)


def _codes(lengths: Bytes) -> NDArray[np.uint64]:
    """Return the canonical codes: ascending by length, then by symbol."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    codes = np.zeros(len(lengths), np.uint64)
    # Each code begins where the last one ends, as fractions of the tree.
    shares = 1 << (MOST_BITS - lengths[order].astype(np.int64))
    codes[order] = (shares.cumsum() - shares) >> (MOST_BITS - lengths[order].astype(np.int64))
    return codes


def byte_count(counts: NDArray[np.int64], lengths: Bytes) -> int:
    """Return how many bytes a text takes, of which each symbol occurs so often."""
    return -(-int((counts * lengths).sum()) // 8)


def encode(symbols: Symbols, lengths: Bytes) -> bytes:
    """Write a text, the first bit of each code first; the last byte is filled up with zeros.

    Args:
        symbols: `(n,)`.
        lengths: Of the code of each symbol, in bits.
    """
    codes, sizes = _codes(lengths), lengths.astype(np.int64)
    total = sum(int(sizes[block].sum()) for block in _blocks(symbols))
    words = np.zeros(total // 32 + 2, np.uint32)
    begin = 0
    for block in _blocks(symbols):
        own = sizes[block]
        ends = begin + own.cumsum()
        starts = ends - own
        # A code lies in one word of 32 bits or in two; codes share no bits, so that their sum is what is written.
        window = codes[block] << (64 - starts % 32 - own).astype(np.uint64)
        places = starts // 32 - begin // 32
        high = np.bincount(places, (window >> np.uint64(32)).astype(np.float64))
        low = np.bincount(places + 1, (window & np.uint64(2**32 - 1)).astype(np.float64))
        words[begin // 32 :][: len(high)] |= high.astype(np.uint32)
        words[begin // 32 :][: len(low)] |= low.astype(np.uint32)
        begin = int(ends[-1])
    return words.astype(">u4").tobytes()[: -(-total // 8)]


def _blocks(symbols: Symbols) -> Iterator[Symbols]:
    return (symbols[begin : begin + _WRITTEN] for begin in range(0, len(symbols), _WRITTEN))


def decode(stream: Bytes, lengths: Bytes, count: int) -> Symbols:
    """Read a text.

    Args:
        stream: What `encode` has written.
        lengths: Of the code of each symbol, in bits; see `is_code`.
        count: Number of symbols, at most one a bit.

    Raises:
        ValueError: If the stream is not that of a text of this length.
    """
    bits = int(lengths.max(initial=0))
    if not count:
        if len(stream):
            raise ValueError("expected no bytes of no symbols")
        return np.zeros(0, np.uint16)
    symbol_of, length_of = _table(lengths, bits)
    found: list[Symbols] = []
    missing, start, total = count, 0, 8 * len(stream)
    padded = np.concatenate((stream, np.zeros(_MARGIN, np.uint8)))
    while missing:
        if start >= total:
            raise ValueError("expected more bytes")
        first = start // 8
        windows = _windows(padded[first : first + _READ // 8 + _MARGIN], bits)
        starts, end = _starts(length_of.take(windows), start % 8, min(_READ, total - 8 * first), missing)
        found.append(symbol_of[windows[starts]])
        missing -= len(starts)
        start = 8 * first + end
    if -(-start // 8) != len(stream) or int(stream[-1]) & ((1 << (total - start)) - 1):
        raise ValueError("expected fewer bytes")
    return np.concatenate(found)


def _table(lengths: Bytes, bits: int) -> tuple[Symbols, Bytes]:
    """Return the symbol, and the length of its code, for each of the bits that may come next; 0 if there is none."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    spans = 1 << (bits - lengths[order].astype(np.int64))
    symbol_of, length_of = np.zeros(1 << bits, np.uint16), np.zeros(1 << bits, np.uint8)
    symbol_of[: spans.sum()] = np.repeat(order, spans)
    length_of[: spans.sum()] = np.repeat(lengths[order], spans)
    return symbol_of, length_of


def _windows(stream: Bytes, bits: int) -> NDArray[np.intp]:
    """Return the next `bits` bits at each bit of a stream but those of its last two bytes."""
    wide = stream.astype(np.intp)
    words = (wide[:-2] << 16) | (wide[1:-1] << 8) | wide[2:]
    windows: NDArray[np.intp] = (words[:, None] >> (24 - bits - np.arange(8))) & ((1 << bits) - 1)
    return windows.reshape(-1)


def _starts(lengths: Bytes, start: int, stop: int, most: int) -> tuple[NDArray[np.intp], int]:
    """Return where symbols begin, of those that begin from `start` to before `stop`, and where the next one does.

    Args:
        lengths: Of the code that begins at each bit, 0 if none does.
        start: Where the first one begins.
        stop: Where none has to any more; behind it there are `_MARGIN` bytes.
        most: Number of symbols after which nothing is read.

    Raises:
        ValueError: If something begins there that is no symbol.
    """
    ahead = np.arange(len(lengths)) + lengths
    np.minimum(ahead, len(lengths) - 1, out=ahead)
    leap = ahead
    for _ in range(_DOUBLINGS):
        leap = leap.take(leap)
    leaps, position = memoryview(leap.data), start
    firsts: list[int] = []
    while position < stop and len(firsts) << _DOUBLINGS < most:
        firsts.append(position)
        position = leaps[position]
        if position == firsts[-1]:
            raise ValueError("expected a symbol")
    columns = [np.array(firsts)]
    for _ in range(2**_DOUBLINGS - 1):
        columns.append(ahead.take(columns[-1]))
    starts = np.stack(columns, axis=1).reshape(-1)
    starts = starts[: min(most, int(np.searchsorted(starts, stop)))]
    if not lengths[starts].all():
        raise ValueError("expected a symbol")
    return starts, int(ahead[starts[-1]])
