"""The fast iterative shrinkage-thresholding algorithm (FISTA), one step at a time."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Fista:
    """Minimize a smooth function plus `l1` times the L1 norm over numbers that are not negative.

    Args:
        values: `(n,)`, where to begin.
        restart: Let each number begin anew, without momentum, where that has carried it past its goal: with gradients
            of a function that changes, or is noisy, it would swing ever wider.

    Reference:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems, 2009, SIAM
        Journal on Imaging Sciences 2(1), equations 4.1 to 4.3; O'Donoghue and Candes, Adaptive Restart for Accelerated
        Gradient Schemes, 2015, arXiv:1204.3982, section 3.2, for each number by itself.

    >>> import torch
    >>> fista = Fista(torch.tensor([2.0]))
    >>> for _ in range(3):
    ...     _ = fista.step(fista.point - 1, rate=0.5, l1=0.3)
    >>> fista.values
    tensor([0.8167])
    """

    def __init__(self, values: Tensor, restart: bool = False) -> None:
        self.values = values.clone()
        """`(n,)`, the numbers found so far."""
        self.point = values.clone()
        """`(n,)`, where the next gradient is to be taken: the values, carried on in the direction of the last step."""
        self._restart = restart
        self._alpha = torch.ones_like(values)

    def step(self, gradient: Tensor, rate: float, l1: float | Tensor) -> Tensor:
        """Make one step; return `(n,)`, where the gradient alone would have led.

        Args:
            gradient: `(n,)`, of the smooth function at `point`.
            rate: Step size.
            l1: Weight of the L1 norm, one or `(n,)`.
        """
        moved = self.point - rate * gradient
        values = (moved - rate * l1).clamp(min=0)
        if self._restart:
            past = (self.point - values) * (values - self.values) > 0
            self._alpha = self._alpha.masked_fill(past, 1.0)
        alpha = (1 + (1 + 4 * self._alpha**2).sqrt()) / 2
        self.point = values + (self._alpha - 1) / alpha * (values - self.values)
        self.values, self._alpha = values, alpha
        return moved

    def keep(self, chosen: Tensor, values: Tensor) -> None:
        """Put the `chosen` numbers, `(n,)` bool, back to `values`, `(n,)`, at rest."""
        self.values = self.values.where(~chosen, values)
        self.point = self.point.where(~chosen, values)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration is, on the CPU."""
        return {"values": self.values.cpu(), "point": self.point.cpu(), "alpha": self._alpha.cpu()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another iteration was."""
        self.values = state["values"].to(self.values)
        self.point = state["point"].to(self.point)
        self._alpha = state["alpha"].to(self.values)
