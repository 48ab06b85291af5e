"""Image classifiers of transformers: from the Hugging Face hub, from a folder, or by their type."""

from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.models.libraries import import_library, unknown

_CLASSIFIER = "AutoModelForImageClassification"


class Logits(nn.Module):
    """Return the logits of a model of transformers as a tensor.

    Its `state_dict` has `model.` before the model's own keys; `model.save_pretrained(FOLDER)` writes what transformers
    reads.

    Args:
        model: Takes `pixel_values` and returns something with `logits`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `(n, num_classes)` of images `(n, channels, h, w)`."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def huggingface_network(
    name: str,
    num_classes: int = 1000,
    in_channels: int = 3,
    pretrained: bool = False,
    auto_class: str = _CLASSIFIER,
    **options: Any,
) -> nn.Module:
    """Build an image classifier of transformers.

    Args:
        name: Of a model on huggingface.co, such as `microsoft/resnet-50`; a folder with its `config.json` (and its
            weights, if they are used); or a type that transformers knows, such as `vit`, for its default sizes.
        num_classes: Length of the output. Where pretrained weights are for another number, the last layer begins with
            random ones.
        in_channels: Channels of the images. If pretrained weights are for another number, so does the first layer.
        pretrained: Whether to begin with the weights of the hub or the folder.
        auto_class: Class of transformers whose `from_config` and `from_pretrained` are called.
        options: Entries of the model's configuration, by name, such as `image_size` or `hidden_size`.

    Raises:
        InputError: If transformers is not there, has no such class or option, or the model cannot be had.
    """
    transformers = import_library("transformers", "huggingface")
    classes = [entry for entry in dir(transformers) if entry.startswith("AutoModel")]
    if auto_class not in classes:
        raise unknown("model.auto_class", "an AutoModel class of transformers", auto_class, classes)
    wanted = {"num_labels": num_classes, "num_channels": in_channels, **options}
    builder = getattr(transformers, auto_class)
    try:
        config, unused = _configure(transformers, name, wanted)
        _refuse(unused, name, config.to_dict())
        if not pretrained:
            return Logits(builder.from_config(config))
        # Other sizes of the last layer are why shapes may differ.
        model = builder.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
    except InputError:
        raise
    except Exception as error:  # the hub's, those of a configuration's own checks, of its files, ..: unrelated types
        raise InputError(
            "model.name: expected a model on huggingface.co, a folder with one or a type that transformers knows, such "
            f"as vit, got {name!r}, of which {auto_class} says: {shorten(str(error), 200)}"
        ) from error
    # Files may hold half precision, and what is loaded is in eval mode.
    return Logits(model.float().train())


def _configure(transformers: Any, name: str, wanted: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a configuration, and those of the wanted entries that it does not have."""
    if name not in transformers.CONFIG_MAPPING:
        found: tuple[Any, dict[str, Any]] = transformers.AutoConfig.from_pretrained(
            name, return_unused_kwargs=True, **wanted
        )
        return found
    known = {"num_labels", *transformers.AutoConfig.for_model(name).to_dict()}
    unused = {key: value for key, value in wanted.items() if key not in known}
    used = {key: value for key, value in wanted.items() if key in known}
    return transformers.AutoConfig.for_model(name, **used), unused


def _refuse(unused: dict[str, Any], name: str, known: dict[str, Any]) -> None:
    if unused.pop("num_channels", 3) != 3:
        raise InputError(f"model: expected a model that says how many channels it reads, got {name!r}, which reads 3")
    for key in unused:
        raise unknown(f"model.{key}", f"an entry of the configuration of {name}", key, known)
