"""Integers times a real number, in integers: what hardware without floats does behind a layer."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Integers = NDArray[np.integer[Any]]

_MOST_SHIFT = 31
"""Together with the 31 bits of a mantissa, what an int64 that holds the product can be shifted by."""


class Multiplier(NamedTuple):
    """Real factors as `mantissa * 2 ** -(31 + shift)`, both int32; the mantissa is a half of 2^31 or more, or 0."""

    mantissa: Integers
    shift: Integers
    """-31 to 31; negative for factors of 1 or more."""

    @classmethod
    def of(cls, factors: ArrayLike) -> "Multiplier":
        """Return those next to factors, 0 or more, of any shape.

        What it cannot hold makes no difference to codes: below 2^-32, a factor leaves less than a half of any int32 and
        becomes 0; from 2^31 on, it saturates any code and becomes the largest.

        Reference:
            Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
            Inference", 2018, arXiv 1712.05877, equation 6.

        >>> Multiplier.of(0.375)
        Multiplier(mantissa=array(1610612736, dtype=int32), shift=array(1, dtype=int32))
        """
        share, exponent = np.frexp(np.asarray(factors, np.float64))
        mantissa = np.rint(share * 2**31)
        over = mantissa == 2**31  # rounded up to 1, which is a half of the next power of two
        mantissa, shift = np.where(over, 2**30, mantissa), -exponent - over
        mantissa = np.where(shift > _MOST_SHIFT, 0, np.where(shift < -_MOST_SHIFT, 2**31 - 1, mantissa))
        shift = shift.clip(-_MOST_SHIFT, _MOST_SHIFT)
        return cls(np.asarray(mantissa, np.int32), np.asarray(shift, np.int32))


def multiplied(numbers: Integers, by: Multiplier) -> NDArray[np.int64]:
    """Return int32 numbers times real factors, rounded once; halves go to the even one, as `QuantizeLinear` has it.

    Args:
        numbers: Of any shape.
        by: Of a shape that broadcasts over it.
    """
    product = numbers.astype(np.int64) * by.mantissa
    bits = _MOST_SHIFT + by.shift.astype(np.int64)
    floor, one = product >> bits, np.int64(1) << bits
    twice_rest = (product - (floor << bits)) << 1
    rounded: NDArray[np.int64] = floor + ((twice_rest > one) | ((twice_rest == one) & (floor & 1 == 1)))
    return rounded


def saturated(numbers: Integers, dtype: np.dtype[Any]) -> Integers:
    """Return numbers as codes of an integer type, of the same shape, those out of its range as the nearest."""
    limits = np.iinfo(dtype)
    return numbers.clip(limits.min, limits.max).astype(dtype)
