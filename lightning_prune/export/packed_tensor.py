"""How a tensor lies in a file."""

import math
from typing import NamedTuple

import numpy as np
import torch

from lightning_prune.export.byte_stream import Reader, varint
from lightning_prune.export.huffman import Bytes, is_code
from lightning_prune.export.relative_index import MOST_BITS

DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.uint16, torch.uint32, torch.uint64),
)
"""Number formats; a file has their places here, so that new ones come last."""

RAW, DENSE = 0, 1
"""Forms of a tensor; a greater number is that of a sparse one, less `DENSE` the bits of a relative index."""

MOST_VALUES = 2**8
"""That a codebook holds beside zero."""

_MOST_DIMENSIONS = 64

_EXPANSION, _FREE = 1024, 4
"""A tensor unpacks to no more than so many times its bytes, after so many that count anyway. A file that says so of
itself is refused before memory is asked for, and nearly empty tensors are packed in a form that keeps to it."""


class Sizes(NamedTuple):
    """Bytes of a tensor in a file."""

    codebook: int = 0
    tables: int = 0
    codes: int = 0
    indices: int = 0
    raw: int = 0


class PackedTensor(NamedTuple):
    """A tensor as it is in a file: raw, or as codes of its values, those of zeros left out where it is sparse."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    raw: Bytes = np.zeros(0, np.uint8)
    codebook: Bytes = np.zeros(0, np.uint8)
    codes: Bytes = np.zeros(0, np.uint8)
    code_lengths: Bytes = np.zeros(0, np.uint8)
    gap_bits: int = 0
    entries: int = 0
    gaps: Bytes = np.zeros(0, np.uint8)
    gap_lengths: Bytes = np.zeros(0, np.uint8)

    @property
    def sizes(self) -> Sizes:
        """Bytes of its parts."""
        tables = len(_nibbles(self.code_lengths)) + len(_nibbles(self.gap_lengths))
        return Sizes(len(self.codebook), tables, len(self.codes), len(self.gaps), len(self.raw))


def most_bytes(packed: int) -> int:
    """Return how many bytes so many may unpack to."""
    return _EXPANSION * (_FREE + packed)


def to_bytes(packed: PackedTensor) -> bytes:
    """Return a packed tensor as it is in a file."""
    form = DENSE + packed.gap_bits if len(packed.code_lengths) else RAW
    parts = [bytes((DTYPES.index(packed.dtype), form)), *map(varint, (len(packed.shape), *packed.shape))]
    if form == RAW:
        return b"".join([*parts, packed.raw.tobytes()])
    parts += [varint(len(packed.codebook) // packed.dtype.itemsize), packed.codebook.tobytes()]
    parts += [*_stream(packed.code_lengths, packed.codes)]
    if form > DENSE:
        parts += [varint(packed.entries), *_stream(packed.gap_lengths, packed.gaps)]
    return b"".join(parts)


def _stream(lengths: Bytes, stream: Bytes) -> tuple[bytes, ...]:
    return varint(len(lengths)), _nibbles(lengths), varint(len(stream)), stream.tobytes()


def _nibbles(lengths: Bytes) -> bytes:
    """Return the lengths of codes in four bits each, the first of two in the upper ones."""
    even = np.append(lengths, np.zeros(len(lengths) % 2, np.uint8))
    return bytes((even[::2] << 4 | even[1::2]).astype(np.uint8))


def from_bytes(reader: Reader) -> PackedTensor:
    """Read a packed tensor, and check all that it says of its sizes.

    Raises:
        ValueError: If that cannot be.
    """
    number, form = reader.take(2).tolist()
    if number >= len(DTYPES) or form > DENSE + MOST_BITS:
        raise ValueError("a tensor in an unknown form")
    dtype = DTYPES[number]
    dimensions = reader.varint()
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError("too many dimensions")
    shape = tuple(reader.varint() for _ in range(dimensions))
    size = math.prod(shape)
    # Not the size alone, since one of 0 hides what torch multiplies nevertheless.
    if math.prod(max(1, length) for length in shape) * dtype.itemsize >= 2**62:
        raise ValueError("a tensor that is too large")
    if form == RAW:
        return PackedTensor(dtype, shape, reader.take(size * dtype.itemsize))
    values = reader.varint()
    if values > MOST_VALUES or dtype.itemsize > 8:
        raise ValueError("a codebook that is too large")
    codebook = reader.take(values * dtype.itemsize)
    lengths, codes = _read_stream(reader, values + 1)
    packed = PackedTensor(dtype, shape, codebook=codebook, codes=codes, code_lengths=lengths, entries=size)
    if len(lengths) != values + 1:
        raise ValueError("codes without values")
    if form > DENSE:
        bits, entries = form - DENSE, reader.varint()
        gap_lengths, gaps = _read_stream(reader, 2**bits)
        packed = packed._replace(gap_bits=bits, entries=entries, gaps=gaps, gap_lengths=gap_lengths)
        if entries > 8 * len(gaps) or size > (entries + 1) << bits:
            raise ValueError("a tensor that is larger than its entries tell")
    if packed.entries > 8 * len(codes) or size * dtype.itemsize > most_bytes(sum(packed.sizes)):
        raise ValueError("a tensor that is larger than its codes tell")
    return packed


def _read_stream(reader: Reader, most: int) -> tuple[Bytes, Bytes]:
    """Return the lengths of the codes of at most so many symbols, and the bytes of a text."""
    count = reader.varint()
    if count > most:
        raise ValueError("too many codes")
    pairs = reader.take(-(-count // 2))
    lengths = np.stack((pairs >> 4, pairs & 15), axis=1).reshape(-1)
    if not is_code(lengths[:count]) or lengths[count:].any():
        raise ValueError("lengths of codes that do not fit together")
    return lengths[:count], reader.take(reader.varint())
