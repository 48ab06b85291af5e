"""The gradients of soft masks between two updates."""

import torch
from torch import Tensor


class MaskGradients:
    """Collect the gradients of the steps that are really made.

    Args:
        like: `(n,)`, the masks.
        averaged: Take the mean of all steps; if not, the last alone.
    """

    def __init__(self, like: Tensor, averaged: bool) -> None:
        self._sum = torch.zeros_like(like)
        self._steps = 0
        self._averaged = averaged
        self._pending: Tensor | None = None

    def note(self, gradient: Tensor) -> None:
        """Keep the gradient, `(n,)`, of a step that is about to be made; `confirm` counts it once it was."""
        self._pending = gradient

    def drop(self) -> None:
        """Forget what was noted: the step was skipped, or is counted already."""
        self._pending = None

    def confirm(self) -> bool:
        """Count what was noted; return whether anything was."""
        if self._pending is None:
            return False
        self._sum = self._sum + self._pending if self._averaged else self._pending
        self._steps = self._steps + 1 if self._averaged else 1
        return True

    def mean(self) -> Tensor | None:
        """Return the mean, `(n,)`; None if no step was made."""
        return self._sum / self._steps if self._steps else None

    def begin_anew(self) -> None:
        """Forget all steps."""
        self._sum, self._steps = torch.zeros_like(self._sum), 0

    def state(self) -> tuple[Tensor, int]:
        """Return the sum, `(n,)`, on the CPU, and the number of steps."""
        return self._sum.cpu(), self._steps

    def load(self, state: tuple[Tensor, int]) -> None:
        """Go on where others were, from a sum, `(n,)`, and the number of steps."""
        self._sum, self._steps = state[0].to(self._sum.device), state[1]
