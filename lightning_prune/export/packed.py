"""Deep Compression's last step: a network in one small `.lpz` file, which unpacks to exactly the same bits.

A file is, one after the other: the bytes `LPZ` and a version; the state that `slim_state` returns, as deflated JSON in
which tensors are numbers; the tensors; and the SHA-256 of all that. A tensor of few different values is a codebook of
them, in its own number format, and the Huffman codes of its elements, code 0 for zero, in row-major order. A sparse one
has codes for the elements alone that are not zero, and relative indices, with a Huffman code of their own. Any other
tensor is raw. Numbers are in bytes of seven bits. Nothing in a file is executed, and no size is believed before it has
been compared with the bytes that are there.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.export import tensor_codes
from lightning_prune.export.byte_stream import Reader, varint
from lightning_prune.export.packed_tensor import PackedTensor, Sizes, from_bytes, to_bytes
from lightning_prune.export.plain_tree import flatten, named, restore
from lightning_prune.slimming import Model, load_slim_state, slim_state

_MAGIC = b"LPZ\x01"
_DIGEST = hashlib.sha256().digest_size
_MOST_INFLATED = 1040
"""How many bytes one deflated byte can stand for."""


class PackedSizes(NamedTuple):
    """Bytes of a file by part, which add up to those that it has."""

    tensors: dict[str, Sizes]
    """By the keys that lead to a tensor, such as `state_dict/fc.weight`."""
    header: int
    """All that describes the tensors, and the checksum."""

    @property
    def parts(self) -> Sizes:
        """Bytes of all tensors together."""
        return Sizes(*map(sum, zip(*self.tensors.values(), strict=True))) if self.tensors else Sizes()

    @property
    def total(self) -> int:
        """Bytes of the file."""
        return self.header + sum(self.parts)


def write_packed(model: nn.Module, path: str | os.PathLike[str], *, build: Mapping[str, Any] | None = None) -> None:
    """Write a network as one small file: its weights, and what `load_packed` needs to rebuild a slim one.

    What makes it small are zeros and few different values, as `GradualPruning` and `WeightSharing` leave them. It is
    read again and compared, bit by bit, before it takes the place of a file that is already there.

    Args:
        model: Any module, slim or not.
        path: The file.
        build: See `slim_state`.

    Raises:
        InputError: If the state of the model is not tensors and plain data.
        RuntimeError: If the file holds something else.
    """
    state = slim_state(model, build=build)
    packed = pack(state)
    tree, tensors = flatten(unpack(packed, path))
    own_tree, own = flatten(state)
    if tree != own_tree or not all(map(_same_bits, tensors, own)):
        raise RuntimeError("the file was not written, since it would hold something else")
    part = Path(path).with_name(f".{Path(path).name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_bytes(packed)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_packed(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `write_packed` has written, with the same bits: the state that `load_slim_state` takes.

    Raises:
        InputError: If the file is missing, truncated, altered, or no such file.
    """
    return unpack(_bytes_of(path), path)


def load_packed(model: Model, path: str | os.PathLike[str]) -> Model:
    """Shrink a freshly built model to the packed one and load its weights.

    Args:
        model: A model built by the code that built the dense one; it is changed in place and returned.
        path: A file written by `write_packed`.

    Raises:
        InputError: If the file cannot be read, or is that of another architecture.
    """
    return load_slim_state(model, read_packed(path), path)


def packed_sizes(path: str | os.PathLike[str]) -> PackedSizes:
    """Return the bytes of a file by part.

    Raises:
        InputError: As `read_packed`.
    """
    data = _bytes_of(path)
    tree, tensors = _parse(data, path)
    found = dict(zip(named(tree), [tensor.sizes for tensor in tensors], strict=True))
    return PackedSizes(found, len(data) - sum(map(sum, found.values())))


def pack(state: Mapping[str, Any]) -> bytes:
    """Return a state, of tensors and plain data, as the bytes of a file.

    Raises:
        InputError: If it holds anything else.
    """
    tree, tensors = flatten(state)
    text = json.dumps(tree, separators=(",", ":")).encode()
    deflated = zlib.compress(text, 9)
    parts = [_MAGIC, varint(len(text)), varint(len(deflated)), deflated, varint(len(tensors))]
    parts += [to_bytes(tensor_codes.pack_tensor(tensor)) for tensor in tensors]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes, source: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the state that `pack` was given.

    Args:
        data: Untrusted.
        source: Where they are from, for messages.

    Raises:
        InputError: If they are not what `pack` returns.
    """
    tree, packed = _parse(data, source)
    try:
        state = restore(tree, [tensor_codes.unpack_tensor(tensor) for tensor in packed])
        if not isinstance(state, dict):
            raise ValueError("no dictionary")
        return state
    except Exception as error:
        raise _altered(source, error) from error


def _parse(data: bytes, source: str | os.PathLike[str]) -> tuple[Any, list[PackedTensor]]:
    """Return the JSON and the packed tensors in the bytes of a file, all sizes of which are checked."""
    if not data.startswith(_MAGIC[:3]):
        raise InputError(f"expected a file written by write_packed, got {source}, which is none")
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if len(data) < len(_MAGIC) + _DIGEST or hashlib.sha256(body).digest() != digest:
        raise InputError(
            f"expected a file as write_packed wrote it, got {source}, whose checksum is wrong: it is truncated or "
            "altered; copy or write it again"
        )
    if not body.startswith(_MAGIC):
        raise InputError(f"expected a file of version {_MAGIC[3]}, got {source} of version {body[3]}")
    try:
        reader = Reader(body[len(_MAGIC) :])
        tree = _inflated(reader.varint(), reader.take(reader.varint()).tobytes())
        tensors = [from_bytes(reader) for _ in range(reader.count(reader.varint()))]
        if reader.left or len(named(tree)) != len(tensors):
            raise ValueError("more than its contents tell")
        return tree, tensors
    except Exception as error:
        raise _altered(source, error) from error


def _inflated(size: int, deflated: bytes) -> Any:
    if size > _MOST_INFLATED * len(deflated):
        raise ValueError("a description that is larger than its bytes tell")
    text = zlib.decompressobj().decompress(deflated, size + 1)
    if len(text) != size:
        raise ValueError("a description of another size")
    return json.loads(text)


def _bytes_of(path: str | os.PathLike[str]) -> bytes:
    if not Path(path).is_file():
        raise InputError(f"expected a file written by write_packed, got {path}, which does not exist")
    return Path(path).read_bytes()


def _altered(source: str | os.PathLike[str], error: Exception) -> InputError:
    reason = str(error).partition("\n")[0] if type(error) is ValueError else type(error).__name__
    return InputError(f"expected a file as write_packed writes it, got {source}, which was forged: {reason}")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    pair = [tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*pair)
