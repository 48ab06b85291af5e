"""Which labels are one channel, once a single dimension of every reshape that splits channels loses positions."""

import torch
from torch import Tensor

from lightning_prune.slimming.channels.channel_walk import Facts
from lightning_prune.slimming.channels.labels import components


def channels_of(facts: Facts) -> Tensor:
    """Return `(labels,)` the channel of each label, once every reshape has a single dimension that loses positions."""
    edges = facts.edges or [(torch.zeros(0, dtype=torch.int64),) * 2]
    channel = components(facts.labels, *(torch.cat(side) for side in zip(*edges, strict=True)))
    if not facts.splits:
        return channel
    for labels in facts.splits:
        carrier = _carrier(channel[labels])
        for dim in range(labels.ndim):
            if dim != carrier:
                facts.unite(labels, labels.narrow(dim, 0, 1))
    return components(facts.labels, *(torch.cat(side) for side in zip(*facts.edges, strict=True)))


def _carrier(channel: Tensor) -> int:
    """Return the dimension along which channels that a reshape has put along several can go.

    It is the last one along which they are not all one anyway: what code mixes, the positions within a head of
    attention for example, stays whole.
    """
    for dim in reversed(range(channel.ndim)):
        varies = (channel != channel.narrow(dim, 0, 1)).any(dim=dim)
        if varies.all():
            return dim
    return channel.ndim - 1
