"""Rules of operators that look positions up."""

import torch
from torch.fx import Node

from lightning_prune.graph import Arguments
from lightning_prune.slimming.channels.channel_labels import Axis
from lightning_prune.slimming.channels.channel_walk import ChannelWalk, NotFollowed
from lightning_prune.slimming.channels.facts import KEPT


def gather(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an index into dimensions that lie before those of the channels; channels along the indexed ones stay."""
    source, indices = arguments["self"], arguments["indices"]
    rank = len(walk.shape(source))
    indexed = [number - rank for number, index in enumerate(indices) if index is not None]
    kinds = [index.meta["val"].dtype for index in indices if isinstance(index, Node)]
    if indexed != list(range(indexed[0], indexed[-1] + 1)) or len(kinds) < len(indexed) or torch.bool in kinds:
        raise NotFollowed
    axes = []
    for axis in walk.axes(source):
        if min(axis.dims) > indexed[-1]:
            axes.append(axis)
        else:
            walk.facts.keep(axis.labels, f"are chosen by {node.target}")
    return axes


def index_select(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow a gather of channels by an index buffer, which slimming rewrites.

    An output channel is the input channel that it reads. One that reads a channel which is always zero is nobody
    else's, and can be removed on its own.
    """
    source, dim, index = arguments["self"], arguments["dim"], arguments["index"]
    facts, channels, reading = walk.facts, walk.only(source, dim), walk.channels(index, 0)
    if channels is None or reading is None or index not in walk.names:
        raise NotFollowed
    order = walk.tensors[walk.names[index]].long().cpu()
    reads = ~(channels.zero & (channels.labels == KEPT))[order]
    facts.unite(reading.labels[reads], channels.labels[order][reads])
    before = facts.gathers.setdefault(walk.names[index], channels.labels)
    if len(before) != len(channels.labels):
        raise NotFollowed(f"are read by {walk.names[index]}, which reads from two widths")
    facts.unite(before, channels.labels)  # a buffer that serves twice is rewritten once
    return [Axis(channels.dim, reading.labels, channels.zero[order])]


def embedding(walk: ChannelWalk, node: Node, arguments: Arguments) -> list[Axis]:
    """Follow an embedding, whose table has one row an entry and one column a channel."""
    rows, columns = walk.channels(arguments["weight"], 0), walk.channels(arguments["weight"], 1)
    if rows is not None:
        walk.facts.keep(rows.labels, f"are the entries of the table of {node.name}")
    if columns is None:
        return []
    walk.facts.owned.append((columns.labels, columns.labels, "writer"))
    return [Axis(-1, columns.labels, columns.zero)]


RULES = {"index": gather, "index_select": index_select, "embedding": embedding}
