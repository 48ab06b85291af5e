"""Which units of a model can be pruned."""

import logging
from collections.abc import Collection
from typing import Literal

from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.graph import LayerPatterns, holder
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.layer_weights import depthwise_layers, layer_weights, trained_weights
from lightning_prune.pruning.prunable import Prunable
from lightning_prune.pruning.prunable_channels import PrunableChannels
from lightning_prune.pruning.prunable_weight import PrunableWeight
from lightning_prune.slimming import TracedModel, prunable_groups_of

log = logging.getLogger(__name__)

Skip = str
"""Which layers are left as they are, whatever their sparsity: one of three words, or a pattern of layer names; see
`lightning_prune.graph.layer_patterns.LayerPatterns`.

* `"first"`: the layer that reads the input, the first registered one that has a weight. It is none where an embedding
  or an attention is registered before all others: in a transformer on words, the first block is like the next.
* `"last"`: the last registered one that has a weight.
* `"depthwise"`: depthwise convolutions, unless channels are pruned: then those follow the channel that they pass on.
"""

Uncut = Literal["skip", "refuse"]
"""What happens to a layer whose shape a granularity cannot cut: it is left as it is, or refused before training."""


def find_prunables(
    model: nn.Module,
    traced: TracedModel | None,
    granularity: Granularity,
    skip: Collection[Skip] = (),
    uncut: Uncut = "skip",
) -> list[Prunable] | None:
    """Return what can be pruned in a model; None if it has to be `traced` for that, and is not.

    Raises:
        InputError: If there is nothing, or a layer cannot be cut and is to be refused.
    """
    channels = granularity if isinstance(granularity, Channel) and granularity.coupled else None
    skipped = skipped_layers(model, skip, coupled=channels is not None)
    if channels is None:
        found, reasons = weight_prunables(model, granularity)
    elif traced is None:
        return None
    else:
        found, reasons = channel_prunables(traced, channels), {}
    reasons = {layer: reason for layer, reason in reasons.items() if layer not in skipped}
    for layer, reason in reasons.items():
        if uncut == "refuse":
            raise InputError(f"{layer}: {reason}")
    left = [prunable for prunable in found if not skipped & set(prunable.layers)]
    if not left:
        why = [f"skip={list(skip)} leaves out {', '.join(sorted(skipped))}"] * bool(skipped)
        why += [f"{layer}: {reason}" for layer, reason in list(reasons.items())[:1]]
        raise InputError(
            f"expected a model with layers that {granularity!r} can prune, found none; "
            f"{'; '.join(why) or 'weights that train are needed'}"
        )
    if reasons:
        first = next(iter(reasons.values()))
        log.warning("%r leaves %s as they are; the first because: %s", granularity, ", ".join(reasons), first)
    return left


def weight_prunables(model: nn.Module, granularity: Granularity) -> tuple[list[Prunable], dict[str, str]]:
    """Return the weights of a model that train, and by layer why one cannot be cut.

    Args:
        model: Any module.
        granularity: How its weights are cut.
    """
    found: list[Prunable] = []
    uncut: dict[str, str] = {}
    for name, weight in trained_weights(model).items():
        try:
            granularity.tile(weight.shape)
        except InputError as error:
            uncut[holder(name)] = str(error)
        else:
            found.append(PrunableWeight(name, weight.shape, granularity))
    return found, uncut


def channel_prunables(traced: TracedModel, granularity: Channel) -> list[Prunable]:
    """Return the coupled channels of a model, without those of frozen layers.

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
    found: list[Prunable] = [
        PrunableChannels(group, shapes, granularity)
        for group in groups
        if all(parameters[member.name].requires_grad for member in group.filters)
    ]
    if not found:
        raise InputError(
            f"expected a {type(model).__name__} with layers that train and whose channels can be removed, found "
            "none; their weights can go by other granularities"
        )
    if all(prunable.widths == [prunable.size] for prunable in found):
        raise InputError(
            f"expected round_to and min_width below the width of a layer of this {type(model).__name__}, got "
            f"round_to={granularity.round_to} and min_width={granularity.min_width}: no channel could go"
        )
    return found


def skipped_layers(model: nn.Module, skip: Collection[Skip], coupled: bool) -> set[str]:
    """Return the names of the layers to skip.

    Args:
        model: The model.
        skip: Which.
        coupled: Whether channels are pruned with all that is coupled with them.

    Raises:
        InputError: If a pattern matches no layer.
    """
    layers = list(dict.fromkeys(holder(name) for name in layer_weights(model)))
    patterns = LayerPatterns(model)
    by_role = {
        "first": _first(model, layers, patterns),
        "last": set(layers[-1:]),
        "depthwise": set() if coupled else depthwise_layers(model),
    }
    skipped = set().union(*(layers_of_role for role, layers_of_role in by_role.items() if role in skip))
    for pattern in (pattern for pattern in skip if pattern not in by_role):
        patterns.check(f"skip[{pattern}]", pattern, layers, f"{', '.join(by_role)} or layers by their names")
        skipped |= {layer for layer in layers if patterns.match(pattern, layer)}
    return skipped


def _first(model: nn.Module, layers: Collection[str], patterns: LayerPatterns) -> set[str]:
    """Return the name of the layer that reads the input, if it is one that can be pruned."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            return set()
        if name in layers:
            around = name.rpartition(".")[0]
            # Who writes an attention calls it that; what its layers compute is known only once it runs.
            outermost = (f"{around}." if around else "") in patterns.prefixes
            named = [module] if outermost else [module, modules[around]]
            return set() if any("Attention" in type(one).__name__ for one in named) else {name}
    return set()
