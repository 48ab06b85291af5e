"""The fast iterative shrinkage-thresholding algorithm (FISTA), one step at a time."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F


class Fista:
    """Minimize a smooth function plus `l1` times the L1 norm over numbers that are not negative.

    Args:
        values: `(n,)`, where to begin.

    Reference:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems, 2009, SIAM
        Journal on Imaging Sciences 2(1), equations 4.1 to 4.3.

    >>> import torch
    >>> fista = Fista(torch.tensor([2.0]))
    >>> for _ in range(3):
    ...     fista.step(fista.point - 1, rate=0.5, l1=0.3)
    >>> fista.values
    tensor([0.8167])
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values.clone()
        """`(n,)`, the numbers found so far."""
        self.point = values.clone()
        """`(n,)`, where the next gradient is to be taken: the values, carried on in the direction of the last step."""
        self._alpha = 1.0

    def step(self, gradient: Tensor, rate: float, l1: float) -> Tensor:
        """Make one step; return `(n,)`, where the gradient alone would have led.

        Args:
            gradient: `(n,)`, of the smooth function at `point`.
            rate: Step size.
            l1: Weight of the L1 norm.
        """
        moved = self.point - rate * gradient
        values = F.softshrink(moved, rate * l1).clamp_(min=0)
        alpha = (1 + math.sqrt(1 + 4 * self._alpha**2)) / 2
        self.point = values + (self._alpha - 1) / alpha * (values - self.values)
        self.values, self._alpha = values, alpha
        return moved

    def keep(self, chosen: Tensor, values: Tensor) -> None:
        """Put the `chosen` numbers, `(n,)` bool, back to `values`, `(n,)`, at rest."""
        self.values = self.values.where(~chosen, values)
        self.point = self.point.where(~chosen, values)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration is, on the CPU."""
        return {"values": self.values.cpu(), "point": self.point.cpu(), "alpha": self._alpha}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another iteration was."""
        self.values = state["values"].to(self.values)
        self.point = state["point"].to(self.point)
        self._alpha = state["alpha"]
