"""Any classifier of torchvision, by its name."""

from typing import Any
from urllib.error import URLError

import torch
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.models.libraries import import_library, unknown


def torchvision_network(
    name: str, num_classes: int = 1000, in_channels: int = 3, pretrained: bool | str = False, **options: Any
) -> nn.Module:
    """Build a classifier of torchvision.

    torchvision's networks read three channels. For another number the first convolution is changed: for gray images to
    the sum over its channels, so that they give what they give as RGB; else channel `i` gets the weights of channel
    `i % 3`, times `3 / in_channels`.

    Args:
        name: As torchvision has it, such as `resnet50`.
        num_classes: Length of the output. Where pretrained weights are for another number, the layers that give logits
            begin with random ones.
        in_channels: Channels of the images.
        pretrained: Whether to begin with the weights that torchvision thinks the best, downloaded once; or the name of
            some, such as `IMAGENET1K_V1`.
        options: Arguments of torchvision's constructor, by name, such as `dropout`.

    Raises:
        InputError: If torchvision is not there, has no such network or weights, or they cannot be downloaded.
    """
    models = import_library("torchvision", "torchvision").models
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("model.name", "the name of a classifier of torchvision", name, known)
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if pretrained:
        weights = _choose_weights(models.get_model_weights(name), name, pretrained)
        try:
            network = _with_last_layers_of(network, models.get_model(name, weights=weights, **options))
        except URLError as error:
            raise InputError(
                f"model.pretrained: expected to download the weights of {name}, got {error.reason}; set "
                "model.pretrained=false for random ones"
            ) from error
    if in_channels != 3:
        _read_channels(network, in_channels)
    return network


def _choose_weights(weights: Any, name: str, pretrained: bool | str) -> Any:
    known = list(weights.__members__)
    if isinstance(pretrained, str) and pretrained not in known:
        raise unknown("model.pretrained", f"true, false or weights of {name}", pretrained, known)
    return weights["DEFAULT" if pretrained is True else pretrained]


def _with_last_layers_of(network: nn.Module, trained: nn.Module) -> nn.Module:
    """Put those layers of a network into a trained one that have another shape there: those that give its classes."""
    for path, layer in list(trained.named_modules()):
        own = network.get_submodule(path).state_dict()
        if any(own[key].shape != tensor.shape for key, tensor in layer.named_parameters(recurse=False)):
            trained.set_submodule(path, network.get_submodule(path))
    return trained


def _read_channels(network: nn.Module, in_channels: int) -> None:
    # The first convolution reads the image: torchvision defines the layers in the order in which data meets them.
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    weight = first.weight.detach()
    repeated = weight[:, torch.arange(in_channels) % 3] * (3 / in_channels)
    first.weight = nn.Parameter(weight.sum(1, keepdim=True) if in_channels == 1 else repeated)
    first.in_channels = in_channels
