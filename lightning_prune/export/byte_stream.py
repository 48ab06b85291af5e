"""Numbers and bytes one after the other, read without trust."""

import numpy as np

from lightning_prune.export.huffman import Bytes


def varint(number: int) -> bytes:
    r"""Return a number of at least 0 in bytes of seven bits, the lowest first.

    >>> varint(5), varint(300)
    (b'\x05', b'\xac\x02')
    """
    groups = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


class Reader:
    """Take bytes off the front of others.

    Args:
        data: The bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data = np.frombuffer(data, np.uint8)
        self._at = 0

    @property
    def left(self) -> int:
        """Number of bytes that are left."""
        return len(self._data) - self._at

    def take(self, count: int) -> Bytes:
        """Return the next `count` bytes, uncopied.

        Raises:
            ValueError: If there are fewer.
        """
        self._at += self.count(count)
        return self._data[self._at - count : self._at]

    def count(self, number: int) -> int:
        """Return `number` if so many bytes are left.

        Raises:
            ValueError: If there are fewer.
        """
        if number > self.left:
            raise ValueError(f"{number} bytes where {self.left} are left")
        return number

    def varint(self) -> int:
        """Return a number that `varint` has written, below `2**63`.

        Raises:
            ValueError: If there is none.
        """
        number = 0
        for shift in range(0, 63, 7):
            byte = int(self.take(1)[0])
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number that is too large")
