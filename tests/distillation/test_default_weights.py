"""The weights in `conf/distillation/`: a network that learns from a teacher by one of them learns its task as well."""

import functools
from typing import Any

import pytest
from configured import composed, options, pieces
from hydra.utils import instantiate
from quiet_trainer import quiet_trainer
from torch import nn

from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation

NAMES = options("distillation")


def configured(name: str, overrides: str = "", **given: Any) -> KnowledgeDistillation:
    cfg = composed(f"strategy=kd distillation={name} {overrides}")
    callback = instantiate(cfg.strategy.kd, student="network", **given)
    assert isinstance(callback, KnowledgeDistillation)
    return callback


def trained(*callbacks: KnowledgeDistillation) -> tuple[nn.Module, float]:
    """Return a network after two epochs of the default recipe, and its accuracy on the test images."""
    module, data, _ = pieces(composed("trainer.max_epochs=2"))
    trainer = quiet_trainer(*callbacks, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    (figures,) = trainer.test(module, datamodule=data, verbose=False)
    return module.network, float(figures["test/accuracy"])


plain = functools.cache(trained)


@pytest.mark.parametrize("name", NAMES)
def test_the_task_is_learned_beside_every_loss(name: str) -> None:
    teacher, accuracy = plain()
    assert trained(configured(name, teacher=teacher))[1] > accuracy - 0.1


def test_a_weight_that_drowns_the_task_is_seen() -> None:
    teacher, accuracy = plain()
    of_the_paper = "strategy.kd.features.weight=1000 strategy.kd.features.loss.relative=false"
    assert trained(configured("attention", of_the_paper, teacher=teacher))[1] < accuracy - 0.2


@pytest.mark.parametrize("name", NAMES)
def test_the_task_keeps_its_weight_where_only_features_are_matched(name: str) -> None:
    callback = configured(name)
    assert callback.loss is not None or (callback.features and callback.weight == 0 and callback.task_weight == 1)
