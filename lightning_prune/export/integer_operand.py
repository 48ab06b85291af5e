"""What is known of an ONNX operator and its operands before anything runs, if all numbers are integers."""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from lightning_prune.errors import InputError
from lightning_prune.export.fixed_point import Integers

MOST = 2**31 - 1
"""The largest int32."""

Compute = Callable[..., Integers]
"""From the integers of all operands, None for one that is left out or a float constant, to those of the result."""


class Grid(NamedTuple):
    """How integers are to be read: `scale * (integer - zero_point)`."""

    scale: NDArray[np.float64]
    """Of a shape that broadcasts over the integers; no dimensions if all have the same."""
    zero_point: int
    most: int
    """The largest distance to the zero-point that can occur."""

    def offsets(self, integers: Integers) -> Integers:
        """Return the distances to the zero-point, as int32."""
        return integers.astype(np.int32) - np.int32(self.zero_point)

    def same(self, other: "Grid") -> bool:
        """Return whether two grids have the same steps, but for the precision of float32."""
        return bool(np.allclose(self.scale, other.scale, rtol=1e-6, atol=0.0))


class Operand(NamedTuple):
    """What is known of a tensor."""

    real: bool
    """Whether the file means real numbers; if not, the integers themselves."""
    shape: tuple[int | None, ...]
    """None for a length that is not known."""
    grid: Grid | None = None
    constant: NDArray[Any] | None = None


class OperatorCall(NamedTuple):
    """One operator with its operands, None for one that is left out."""

    op: str
    name: str
    attributes: dict[str, Any]
    operands: tuple[Operand | None, ...]

    def has(self, index: int) -> bool:
        """Return whether an operand is there."""
        return index < len(self.operands) and self.operands[index] is not None

    def operand(self, index: int) -> Operand:
        """Return an operand.

        Raises:
            InputError: If it is left out.
        """
        operand = self.operands[index] if index < len(self.operands) else None
        if operand is None:
            self.refuse(f"operand {index}", "none")
        return operand

    def real(self, index: int) -> Grid:
        """Return the grid of an operand that means real numbers.

        Raises:
            InputError: If it is none.
        """
        operand = self.operand(index)
        if not operand.real or operand.grid is None:
            self.refuse(f"operand {index} behind a DequantizeLinear", "one without a scale")
        return operand.grid

    def single(self, index: int) -> Grid:
        """Return the grid of an operand that means real numbers with one scale.

        Raises:
            InputError: If it is none, or has several.
        """
        grid = self.real(index)
        if grid.scale.size != 1:
            self.refuse(f"one scale for operand {index}", f"{grid.scale.size}; round it in between")
        return grid._replace(scale=grid.scale.reshape(()))

    def constant(self, index: int) -> NDArray[Any]:
        """Return an operand that does not depend on the inputs.

        Raises:
            InputError: If it does, or is left out.
        """
        constant = self.operand(index).constant
        if constant is None:
            self.refuse(f"a constant operand {index}", "one that is computed")
        return constant

    def integers(self, index: int) -> list[int] | None:
        """Return a constant operand as a list, None if it is left out."""
        return [int(value) for value in self.constant(index).ravel()] if self.has(index) else None

    def fits(self, most: int) -> int:
        """Return the largest magnitude of a sum, if an int32 holds it.

        Raises:
            InputError: If not.
        """
        if most > MOST:
            self.refuse("sums that an int32 holds", f"up to {most}")
        return most

    def needs(self, attribute: str, *values: Any) -> None:
        """Refuse any other value of an attribute than these; it may be left out."""
        value = self.attributes.get(attribute, values[0])
        if value not in values:
            self.refuse(f"{attribute} {' or '.join(map(str, values))}", str(value))

    def refuse(self, expected: str, got: str) -> NoReturn:
        """Raise an `InputError` that names the operator and the node."""
        raise InputError(f"expected {expected} in {self.op} {self.name}, got {got}")


Operator = Callable[[OperatorCall], tuple[Compute, Grid | None]]
"""From a call to how to compute its result, and the grid on which that lies; None if it means no real numbers."""
