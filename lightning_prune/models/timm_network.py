"""Any classifier of timm, by its name."""

from typing import Any

from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.models.libraries import import_library, unknown


def timm_network(
    name: str, num_classes: int = 1000, in_channels: int = 3, pretrained: bool = False, **options: Any
) -> nn.Module:
    """Build a classifier of timm.

    Args:
        name: As timm has it, such as `resnet18`, or `resnet18.a1_in1k` for certain weights; also `hf-hub:OWNER/NAME`
            and `local-dir:FOLDER`.
        num_classes: Length of the output. Where pretrained weights are for another number, the last layer begins with
            random ones.
        in_channels: Channels of the images; timm fits pretrained weights to them.
        pretrained: Whether to begin with pretrained weights, downloaded once.
        options: Arguments of timm's constructor, by name, such as `drop_path_rate`.

    Raises:
        InputError: If timm is not there, has no such network or no weights for it, or they cannot be downloaded.
    """
    timm = import_library("timm", "timm")
    if ":" not in name:
        if not timm.is_model(name):
            raise unknown("model.name", "the name of a network of timm", name, timm.list_models())
        if pretrained and not timm.is_model_pretrained(name):
            raise InputError(f"model.pretrained: expected false, since timm has no weights of {name}, got true")
    arguments = {"num_classes": num_classes, "in_chans": in_channels, **options}
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except OSError as error:  # no network, no such repository or folder: what the hub raises are all of this type
        raise InputError(
            f"model: expected to find {name} on huggingface.co or in a folder, got {type(error).__name__}; "
            "set model.pretrained=false for random weights of a network that timm knows"
        ) from error
    return network
