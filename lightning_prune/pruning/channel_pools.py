"""The channels of a model that compete when they are pruned."""

import logging

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.pools import FILTERS, ChannelPool, Pool
from lightning_prune.slimming import TracedModel, prunable_groups_of

log = logging.getLogger(__name__)


def channel_pools(traced: TracedModel, granularity: Channel = FILTERS) -> list[Pool]:
    """Return the pools of a model's channels, without those of frozen layers.

    Args:
        traced: The model, with what its `forward` takes.
        granularity: Treatment of residual streams, by what channels are scored, and how many may stay.

    Raises:
        InputError: If there are none, none may go, or the model cannot be traced.
    """
    model = traced.model
    parameters = dict(model.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    groups = prunable_groups_of(traced, granularity.residual)
    for reason, layers in groups.fixed.items():
        log.info("Channels stay that %s: %s", reason, ", ".join(f"{layer} ({count})" for layer, count in layers))
    pools: list[Pool] = [
        ChannelPool(group, shapes, granularity)
        for group in groups
        if all(parameters[member.name].requires_grad for member in group.filters)
    ]
    if not pools:
        raise InputError(
            f"expected a {type(model).__name__} with layers that train and whose channels can be removed, found "
            "none; their weights can go by other granularities"
        )
    if all(pool.widths == [pool.size] for pool in pools):
        raise InputError(
            f"expected round_to and min_width below the width of a layer of this {type(model).__name__}, got "
            f"round_to={granularity.round_to} and min_width={granularity.min_width}: no channel could go"
        )
    return pools
