"""What a configuration names, as objects: callbacks, networks, and the module that a stage trains."""

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback, seed_everything
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from lightning_prune.data import InMemoryImages
from lightning_prune.errors import InputError
from lightning_prune.models import ImageClassifier


class BuildError(InputError):
    """What a key of the configuration names cannot be built.

    Args:
        key: Of the innermost part that cannot, such as `strategy.gmp.granularity`.
        cause: Why.
    """

    def __init__(self, key: str, cause: BaseException) -> None:
        self.key, self.cause = key, cause
        kind = "" if isinstance(cause, InputError) else f"{type(cause).__name__}: "
        super().__init__(f"{key}: {kind}{' '.join(str(cause).split())}")


def build(cfg: DictConfig, key: str, given: Mapping[str, Any] | None = None) -> Any:
    """Build what a key of the configuration names, and all in it.

    Args:
        cfg: The configuration of a stage.
        key: With dots, such as `strategy.sfp`.
        given: Arguments that the configuration cannot hold.

    Raises:
        BuildError: If that fails.
    """
    options = OmegaConf.select(cfg, key)
    try:
        return instantiate(options, **(given or {}))
    except InstantiationException as error:
        if error.__cause__ is None:
            raise
        raise BuildError(_failing_key(options, key), error.__cause__) from error.__cause__


def _failing_key(options: DictConfig | ListConfig, key: str) -> str:
    """Return the key of the innermost part that cannot be built, which Hydra tells in the text of its error alone."""
    names: Any = options if isinstance(options, DictConfig) else range(len(options))
    for name in names:
        part = None if OmegaConf.is_missing(options, name) else options[name]
        if isinstance(part, DictConfig | ListConfig):
            try:
                instantiate(part)
            except InstantiationException:
                return _failing_key(part, f"{key}.{name}" if isinstance(options, DictConfig) else f"{key}[{name}]")
    return key


def build_strategy(cfg: DictConfig, teacher: nn.Module | None) -> dict[str, Callback]:
    """Build the callbacks of a stage, those with a teacher around this one, whose weights may come later."""
    return {
        name: build(cfg, f"strategy.{name}", {"teacher": teacher} if "teacher" in options else {})
        for name, options in cfg.strategy.items()
    }


def build_network(cfg: DictConfig, key: str, data: InMemoryImages) -> nn.Module:
    """Build the network that a key names, for the data."""
    network: nn.Module = build(cfg, key, {"num_classes": data.num_classes, "in_channels": data.in_channels})
    return network


def build_classifier(cfg: DictConfig, data: InMemoryImages) -> ImageClassifier:
    """Build what a stage trains, from its seed on."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    optimizer, lr_scheduler = build(cfg, "optimizer"), build(cfg, "lr_scheduler")
    module = ImageClassifier(build_network(cfg, "model", data), data.num_classes, optimizer, lr_scheduler)
    module.example_input_array = data.example_input(2)
    return module


def classifier_options(cfg: DictConfig, data: InMemoryImages) -> dict[str, Any]:
    """Return what `hydra.utils.instantiate` builds the wide module of a stage from, for the files of a slim one."""
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    network = {**model, "num_classes": data.num_classes, "in_channels": data.in_channels}
    path = f"{ImageClassifier.__module__}.{ImageClassifier.__name__}"
    return {"_target_": path, "network": network, "num_classes": data.num_classes}
