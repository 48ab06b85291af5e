"""What is known of the channels of a model: facts in terms of labels, and which labels they make one channel."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.fx import Node

from lightning_prune.slimming.channels.channel_labels import Axis, components

KEPT = 0
"""The label of every channel that can never be removed."""

Role = Literal["filter", "writer", "bias", "scale", "shift", "slope", "reader", "other"]
"""What a stored tensor is to the channels along one of its dimensions.

* `"filter"`, `"writer"`: it writes them: the weight of a convolution, and of any other layer.
* `"bias"`, `"scale"`, `"shift"`, `"slope"`: it exists for them, behind the convolution, in a normalization, in a PReLU.
  Class tokens, position embeddings and the like are biases too.
* `"reader"`: it reads them: the weight of the layer behind.
* `"other"`: anything else, the running statistics of a normalization for example.
"""


@dataclass(frozen=True)
class Slot:
    """One dimension of one stored tensor, whose positions have the labels `start` to `start + size`."""

    name: str
    dim: int
    start: int
    size: int

    @property
    def labels(self) -> slice:
        """The labels of its positions."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True, eq=False)
class SizedCall:
    """A call to which the code of a module may tell sizes: by constants, by attributes, or by what it reads off shapes.

    Args:
        node: The call.
        counted: The labels that each size counts, `(..., old size)`; where there are several such lines, each that is
            not gone as a whole has the same number left.
    """

    node: Node
    counted: tuple[Tensor, ...]


@dataclass(eq=False)
class Facts:
    """What a walk collects, in labels as they were given out; `coupling.py` draws the conclusions.

    Args:
        slots: Where the labels of stored tensors lie, each with a range of its own.
        labels: Number of labels given out.
        edges: Pairs of labels that are one channel.
        kept: Labels that can never be removed, and why.
        consumed: Labels that a layer sums over, with True where they add nothing to the sum, and the layer.
        owned: A channel's labels, those of a parameter that exists for it, and what that parameter is to it.
        readers: Input channels of the weights of layers, as these read them.
        filters: Output channels of convolutions and linear layers.
        costs: Stored weights of convolutions and linear layers, with how often each is multiplied for one input.
        whole_groups: Weights of convolutions and group norms that lose whole groups, with their positions a group.
        gathers: Index buffers that say which input channel each output channel reads: the labels of the input, by name.
        activations: Outputs of activation functions, each with the channels on one of its dimensions.
        splits: Channels that a reshape has put along several dimensions, of which only one can lose positions.
        sized_calls: Where the code says sizes that may have to change.
        unread: Parameters that the traced code does not read.
        unfollowed: Layers whose weight is made by operators that cannot be followed: module, channels and why.
    """

    slots: list[Slot] = field(default_factory=list)
    labels: int = KEPT + 1
    edges: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    kept: list[tuple[Tensor, str]] = field(default_factory=list)
    consumed: list[tuple[Tensor, Tensor, Node]] = field(default_factory=list)
    owned: list[tuple[Tensor, Tensor, Role]] = field(default_factory=list)
    readers: list[Tensor] = field(default_factory=list)
    filters: list[Tensor] = field(default_factory=list)
    costs: list[tuple[str, int]] = field(default_factory=list)
    whole_groups: dict[str, int] = field(default_factory=dict)
    gathers: dict[str, Tensor] = field(default_factory=dict)
    activations: list[tuple[Node, Axis]] = field(default_factory=list)
    splits: list[Tensor] = field(default_factory=list)
    sized_calls: list[SizedCall] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unfollowed: list[tuple[str, int, str]] = field(default_factory=list)

    def fresh(self, count: int) -> Tensor:
        """Return `(count,)` labels that nothing else has."""
        self.labels += count
        return torch.arange(self.labels - count, self.labels)

    def slot_of(self, labels: Tensor) -> Slot | None:
        """Return the slot in which all `labels`, of any shape, lie; None if there is none."""
        before = bisect_right(self.slots, int(labels.min()), key=lambda slot: slot.start)
        slot = self.slots[before - 1] if before else None
        return slot if slot is not None and int(labels.max()) < slot.labels.stop else None

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Record that two sets of labels, of any shapes that broadcast, are the same channels position by position."""
        shape = torch.broadcast_shapes(left.shape, right.shape)  # type: ignore[no-untyped-call]
        self.edges.append((left.expand(shape).reshape(-1), right.expand(shape).reshape(-1)))

    def keep(self, labels: Tensor, reason: str) -> None:
        """Record that channels, labels of any shape, can never be removed, and why."""
        self.kept.append((labels, reason))

    def own(self, owner: Tensor, parameter: Axis, role: Role) -> None:
        """Record that `parameter` has one entry for each channel of `owner`, `(channels,)` labels, as its `role`."""
        self.unite(owner, parameter.labels)
        self.owned.append((owner, parameter.labels, role))


def channels_of(facts: Facts) -> Tensor:
    """Return `(labels,)` int64, the channel of each label: the lowest of those that are one channel.

    Of the dimensions along which a reshape has put channels, a single one can lose positions: along the others they are
    made one.
    """
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
    """Return the dimension along which channels, of any shape, that a reshape has put along several can go.

    It is the last one along which they are not all one anyway: what code mixes, the positions within a head of
    attention for example, stays whole.
    """
    for dim in reversed(range(channel.ndim)):
        varies = (channel != channel.narrow(dim, 0, 1)).any(dim=dim)
        if varies.all():
            return dim
    return channel.ndim - 1
