"""What the files in conf/ describe, built and trained for a moment on the data that comes with scikit-learn."""

import functools
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf
from quiet_trainer import quiet_trainer

from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.options.resolvers import register_resolvers
from lightning_prune.runs.modules import build_strategy

CONF = Path(__file__).parents[1] / "conf"
register_resolvers()
EPOCHS = 4

trainer = functools.partial(
    quiet_trainer, max_epochs=EPOCHS, num_sanity_val_steps=0, limit_train_batches=3, limit_val_batches=1
)


def options(group: str) -> list[str]:
    """Return what can be chosen in a group and is whole: `own` waits for a class."""
    found = sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != "own")
    assert found, f"conf/{group} is empty"
    return found


def content(group: str, name: str) -> DictConfig:
    cfg = OmegaConf.load(CONF / group / f"{name}.yaml")
    assert isinstance(cfg, DictConfig)
    return cfg


def built(group: str, name: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", overrides=["logger=csv", f"{group}={name}"])[group])


def looks_at_weights(name: str) -> bool:
    return bool(built("criterion", name).needs == "weights")


FILTERS = "output_channel"
METHODS = (
    [f"strategy={name}" for name in options("strategy")]
    + [f"strategy=sfp criterion={name}" for name in filter(looks_at_weights, options("criterion"))]
    + [f"strategy=sfp schedule={name}" for name in options("schedule")]
    + [f"strategy=gmp granularity={name}" for name in options("granularity")]
    + [f"strategy=gmp granularity={FILTERS} criterion={name}" for name in options("criterion")]
    + [f"strategy=gmp schedule={name}" for name in options("schedule")]
    + [f"strategy=kd distillation={name}" for name in options("distillation")]
    + [f"strategy=qat quantizer={name}" for name in options("quantizer")]
)


@functools.cache
def composed(overrides: str) -> DictConfig:
    """Return the configuration of a short run; nobody changes it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=["logger=csv", f"trainer.max_epochs={EPOCHS}", *overrides.split()])


def pieces(cfg: DictConfig) -> tuple[ImageClassifier, Any, list[Callback]]:
    torch.manual_seed(0)
    data = instantiate(cfg.data)
    network = instantiate(cfg.model, num_classes=data.num_classes, in_channels=data.in_channels)
    module = ImageClassifier(network, data.num_classes, instantiate(cfg.optimizer), instantiate(cfg.lr_scheduler))
    if "qat" in cfg.strategy:  # which has to know it before the first batch
        module.example_input_array = data.example_input(2)
    return module, data, list(build_strategy(cfg, None).values())
