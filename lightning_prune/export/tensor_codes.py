"""One tensor as few bytes, and the same bits again."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.export.huffman import Bytes, Symbols, byte_count, code_lengths, decode, encode
from lightning_prune.export.packed_tensor import DENSE, DTYPES, MOST_VALUES, RAW, PackedTensor, most_bytes
from lightning_prune.export.relative_index import MOST_BITS, Integers, to_gaps, to_positions, zeros_between

_CHUNK = 2**18
"""Values that are searched for different ones together: most tensors have too many in the first of them."""

Words = NDArray[np.unsignedinteger]


def pack_tensor(tensor: Tensor) -> PackedTensor:
    """Return a tensor, of any shape, in the form that takes the least bytes.

    Raises:
        InputError: If it has another number format than torch's plain ones.
    """
    if tensor.dtype not in DTYPES:
        raise InputError(f"expected tensors of plain numbers to pack, got one of {tensor.dtype}")
    raw = _bytes_of(tensor)
    plain = PackedTensor(tensor.dtype, tuple(tensor.shape), raw)
    if tensor.dtype.itemsize > 8:
        return plain
    words: Words = raw.view(f"<u{tensor.dtype.itemsize}")
    first = words[:_CHUNK]
    if _different(first[first != 0]) is None:
        return plain
    positions = np.flatnonzero(words).astype(np.int64)
    kept = words[positions]
    values = _different(kept)
    if values is None or values.nbytes >= len(raw):
        return plain
    codes = (np.searchsorted(values, kept) + 1).astype(np.uint16)
    coded = plain._replace(raw=raw[:0], codebook=values.view(np.uint8))
    counts = np.bincount(codes, minlength=len(values) + 1).astype(np.int64)
    zeros = zeros_between(positions, len(words))
    costs = {RAW: len(raw), DENSE: _dense_cost(counts, len(words)), **_sparse_costs(counts, zeros)}
    allowed = (form for form in costs if len(raw) <= most_bytes(costs[form] + len(coded.codebook) * (form != RAW)))
    best = min(allowed, key=lambda form: costs[form] + len(coded.codebook) * (form != RAW))
    if best == RAW:
        return plain
    if best == DENSE:
        everywhere = np.zeros(len(words), np.uint16)
        everywhere[positions] = codes
        return _with_codes(coded, everywhere, len(values) + 1)
    gaps, real = to_gaps(zeros, best - DENSE)
    entries = np.zeros(len(gaps), np.uint16)
    entries[real] = codes
    lengths = code_lengths(np.bincount(gaps))
    coded = coded._replace(gap_bits=best - DENSE, entries=len(gaps), gaps=_written(gaps, lengths), gap_lengths=lengths)
    return _with_codes(coded, entries, len(values) + 1)


def _with_codes(packed: PackedTensor, codes: Symbols, count: int) -> PackedTensor:
    lengths = code_lengths(np.bincount(codes, minlength=count))
    return packed._replace(codes=_written(codes, lengths), code_lengths=lengths)


def _written(symbols: Symbols, lengths: Bytes) -> Bytes:
    return np.frombuffer(encode(symbols, lengths), np.uint8)


def _bytes_of(tensor: Tensor) -> Bytes:
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    raw: Bytes = flat.view(torch.uint8).numpy()
    return raw


def _different(words: Words) -> Words | None:
    """Return the different values, ascending; None if there are too many."""
    found = words[:0]
    for begin in range(0, len(words), _CHUNK):
        found = np.union1d(found, words[begin : begin + _CHUNK])
        if len(found) > MOST_VALUES:
            return None
    return found


def _dense_cost(counts: Integers, size: int) -> int:
    """Return the bytes of codes of all elements, given how often those occur that are not zero, and of their table."""
    return _cost(np.concatenate(([size - counts.sum()], counts[1:])))


def _sparse_costs(counts: Integers, zeros: Integers) -> dict[int, int]:
    """Return, by form, the bytes of codes and relative indices, and of their tables."""
    lengths, times = np.unique(zeros, return_counts=True)
    times[np.searchsorted(lengths, zeros[-1])] -= 1  # behind the last entry there is none
    costs = {}
    for bits in range(1, MOST_BITS + 1):
        fillers = int((times * (lengths >> bits)).sum()) + int(zeros[-1] >> bits)
        gaps = np.bincount(lengths & (2**bits - 1), times, minlength=2**bits).astype(np.int64)
        gaps[-1] += fillers
        costs[DENSE + bits] = _cost(np.trim_zeros(gaps, "b")) + _cost(np.concatenate(([fillers], counts[1:])))
    return costs


def _cost(counts: Integers) -> int:
    lengths = code_lengths(counts)
    return byte_count(counts, lengths) + -(-len(lengths) // 2)


def unpack_tensor(packed: PackedTensor) -> Tensor:
    """Return the tensor that was packed, of the same shape.

    Raises:
        ValueError: If its codes are not what they should be.
    """
    raw, size = packed.raw, math.prod(packed.shape)
    if len(packed.code_lengths):
        words: Words = np.append(np.zeros(1, f"<u{packed.dtype.itemsize}"), _words(packed.codebook, packed.dtype))
        codes = decode(packed.codes, packed.code_lengths, packed.entries)
        raw = (_scattered(packed, words[codes], size) if packed.gap_bits else words[codes]).view(np.uint8)
    if packed.dtype is torch.bool and (raw > 1).any():
        raise ValueError("bits that are neither 0 nor 1")
    if not size:
        return torch.empty(packed.shape, dtype=packed.dtype)
    return torch.from_numpy(raw.copy()).view(packed.dtype).reshape(packed.shape)


def _words(raw: Bytes, dtype: torch.dtype) -> Words:
    return np.frombuffer(raw.tobytes(), f"<u{dtype.itemsize}")


def _scattered(packed: PackedTensor, values: Words, size: int) -> Words:
    positions = to_positions(decode(packed.gaps, packed.gap_lengths, packed.entries))
    end = int(positions[-1]) + 1 if len(positions) else 0
    if not 0 <= size - end < 1 << packed.gap_bits:
        raise ValueError("entries outside of their tensor")
    scattered = np.zeros(size, values.dtype)
    scattered[positions] = values
    return scattered
