"""Rules of operators that move values between channels and space."""

from torch.fx import Node

from lightning_prune.graph import Arguments
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed


def channel_shuffle(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a shuffle of channels between groups, which lose the same positions."""
    channels = walk.only(arguments["self"], 1)
    if channels is None:
        return []
    labels, zero = (side.view(arguments["groups"], -1) for side in (channels.labels, channels.zero))
    walk.facts.unite(labels, labels[:1])
    return [Axis(channels.dim, labels.T.reshape(-1), zero.T.reshape(-1))]


def pixel_shuffle(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a shuffle of channels into space: those that become one channel of the output are one."""
    channels, factor = walk.only(arguments["self"], -3), arguments["upscale_factor"] ** 2
    if channels is None:
        return []
    labels, zero = channels.labels.view(-1, factor), channels.zero.view(-1, factor)
    walk.facts.unite(labels, labels[:, :1])
    axis = walk.placed(labels[:, :1, None], zero.all(dim=1)[:, None, None])
    return [] if axis is None else [axis]


def pixel_unshuffle(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a shuffle of space into channels: each channel becomes several of the output."""
    channels, factor = walk.only(arguments["self"], -3), arguments["downscale_factor"] ** 2
    if not walk.shape(node).numel():  # which torch leaves as it is
        raise NotFollowed
    if channels is None:
        return []
    return [Axis(-3, channels.labels.repeat_interleave(factor), channels.zero.repeat_interleave(factor))]


def patches(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow im2col, which puts the patch of each channel beside each other."""
    channels, (height, width) = walk.only(arguments["self"], -3), arguments["kernel_size"]
    if channels is None:
        return []
    size = height * width
    return [Axis(-2, channels.labels.repeat_interleave(size), channels.zero.repeat_interleave(size))]


def from_patches(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow col2im, the sum of the patches of each channel."""
    channels, (height, width) = walk.only(arguments["self"], -2), arguments["kernel_size"]
    if channels is None:
        return []
    labels, zero = channels.labels.view(-1, height * width), channels.zero.view(-1, height * width)
    walk.facts.unite(labels, labels[:, :1])
    axis = walk.placed(labels[:, :1, None], zero.all(dim=1)[:, None, None])
    return [] if axis is None else [axis]


RULES = {
    "channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "im2col": patches,
    "col2im": from_patches,
}
