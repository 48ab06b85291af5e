"""Where the labels of a training batch are."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

KEYS = ("label", "labels", "target", "targets", "y")


def labels(batch: Any) -> Tensor | None:
    """Return the second entry of a batch, or what a batch with names calls one of `KEYS`; None without such a tensor.

    It comes as it is, of any shape; that of class labels is `(n,)`.

    >>> import torch
    >>> labels({"image": torch.zeros(2, 3), "label": torch.tensor([4, 5])})
    tensor([4, 5])
    """
    if isinstance(batch, Mapping):
        found = [batch[key] for key in KEYS if key in batch]
    else:
        found = list(batch[1:2]) if isinstance(batch, list | tuple) else []
    return found[0] if found and isinstance(found[0], Tensor) else None
