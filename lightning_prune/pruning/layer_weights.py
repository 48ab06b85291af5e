"""Which stored tensors of a model are weights that can be pruned one by one."""

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from lightning_prune.graph import evaluating, holder

_NOT_PRUNED = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase, nn.PReLU)


def layer_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights of a model's layers under their stored names, in the order in which they were registered.

    These are the parameters of two or more dimensions that are called weights, trained or not: of convolutions, linear
    layers, attention, recurrent layers and modules of the user's own, and what parametrizations make them from. Biases,
    normalizations and embeddings, with what is tied to them, are left out.
    """
    excluded = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NOT_PRUNED)
        for parameter in module.parameters()
    }
    # In training mode a parametrization may change when it is read, as the vectors of spectral_norm do.
    with evaluating(model):
        return {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.ndim > 1
            and "weight" in _called(name)
            and id(parameter) not in excluded
            and parameter.shape == _shape_in_use(model, name)
        }


def trained_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return those of the `layer_weights` that train."""
    return {name: weight for name, weight in layer_weights(model).items() if weight.requires_grad}


def layer_labels(names: Iterable[str]) -> list[str]:
    """Return the layers of stored weights, or the names of the weights where a layer has several or no name.

    >>> layer_labels(["fc.parametrizations.weight.original", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "weight"])
    ['fc', 'lstm.weight_ih_l0', 'lstm.weight_hh_l0', 'weight']
    """
    layers = {name: holder(name) for name in names}
    weights = Counter(layers.values())
    return [layer if layer and weights[layer] == 1 else name for name, layer in layers.items()]


def depthwise_layers(model: nn.Module) -> set[str]:
    """Return the names of the depthwise convolutions, each filter of which reads one channel."""
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, _ConvNd) and module.groups == module.in_channels > 1
    }


def _called(name: str) -> str:
    """Return what a stored tensor is called in its layer.

    >>> _called("fc.weight"), _called("fc.parametrizations.weight.original1")
    ('weight', 'weight')
    """
    return name.removeprefix(holder(name) + ".").removeprefix("parametrizations.").partition(".")[0]


def _shape_in_use(model: nn.Module, name: str) -> torch.Size:
    """Return the shape of the tensor that the layer computes with, which a parametrization makes from stored ones."""
    tensor: torch.Tensor = getattr(model.get_submodule(holder(name)), _called(name))
    return tensor.shape
