"""Penalties that make weights small: functions of the units of one weight."""

from collections.abc import Callable

import torch
from torch import Tensor

Penalty = Callable[[Tensor], Tensor]
"""A scalar for the units `(n_units, unit_size)` of one weight."""


def group_lasso(units: Tensor) -> Tensor:
    """Return the sum of the L2 norms of units `(n_units, unit_size)`; of single weights, that is their L1 norm.

    It pulls every unit towards zero with the same force, whatever its norm, and leaves one that is zero alone.

    >>> group_lasso(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]))
    tensor(7.)

    Reference:
        Wen et al., Learning Structured Sparsity in Deep Neural Networks, 2016, arXiv:1608.03665, section 3.1.
    """
    norms: Tensor = torch.linalg.vector_norm(units, dim=1)
    return norms.sum()


def l2(units: Tensor) -> Tensor:
    """Return half the sum of the squares of units `(n_units, unit_size)`.

    Its gradient is that of an SGD optimizer's `weight_decay`.

    >>> l2(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor(13.)
    """
    return units.square().sum() / 2
