"""Data modules let through what Lightning sends through their hooks beside their own batches."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.tuner import Tuner
from made_images import module_of
from quiet_trainer import quiet_trainer
from stored_images import stored_module
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.data import ImageData
from lightning_prune.models import ImageClassifier

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]

Make = Callable[[], Any]

MODULES: dict[str, Make] = {
    "in memory": module_of,
    "few views": functools.partial(module_of, views=2),
    "streamed": stored_module,
}

every_module = pytest.mark.parametrize("make", MODULES.values(), ids=list(MODULES))


def classifier(data: Any) -> ImageClassifier:
    size = data.example_input(1).numel()
    module = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(size, data.num_classes)), data.num_classes)
    module.example_input_array = data.example_input(2)
    return module


def foreign(data: Any) -> DataLoader[tuple[Tensor, ...]]:
    images = data.example_input(3)
    return DataLoader(TensorDataset(images, torch.arange(3)), batch_size=2)


@every_module
def test_every_module_tells_what_a_classifier_needs(make: Make) -> None:
    data = make()
    assert isinstance(data, ImageData)
    assert isinstance(data, LightningDataModule)
    example = data.example_input(3)
    assert example.dtype == torch.float32
    assert example.shape[:2] == (3, data.in_channels)
    assert not isinstance(LightningDataModule(), ImageData)


@every_module
def test_the_model_summary_sees_the_example_input(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    data = make()
    quiet_trainer(ModelSummary(), max_epochs=1).fit(classifier(data), datamodule=data)
    assert "In sizes" in caplog.text


@every_module
def test_foreign_loaders_are_predicted_and_tested_as_they_are(make: Make) -> None:
    data, trainer = make(), quiet_trainer(max_epochs=1)
    module = classifier(data)
    trainer.fit(module, datamodule=data)
    logits, labels = (torch.cat(parts) for parts in zip(*trainer.predict(module, foreign(data)), strict=True))
    assert torch.equal(labels, torch.arange(3))
    torch.testing.assert_close(logits, module.eval()(data.example_input(3)))
    (result,) = trainer.test(module, foreign(data), verbose=False)
    right = (logits.argmax(1) == labels).float().mean().item()
    assert result["test/accuracy"] == pytest.approx(right)
    assert len(trainer.predict(module, datamodule=data)) == len(data.test_dataloader())


@every_module
def test_a_few_batches_are_learned_by_heart(make: Make) -> None:
    data = make()
    trainer = quiet_trainer(max_epochs=2, overfit_batches=1)
    trainer.fit(classifier(data), datamodule=data)
    assert trainer.global_step == 2


@every_module
def test_the_learning_rate_is_found(make: Make, tmp_path: Path) -> None:
    data = make()
    module = classifier(data)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trainer = finding_trainer(tmp_path)
    found = Tuner(trainer).lr_find(module, datamodule=data, num_training=30, early_stop_threshold=None)
    assert found is not None
    assert len(found.results["lr"]) == 30
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module.lr == found.suggestion()
    trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 10


@every_module
def test_the_batch_size_is_found(make: Make, tmp_path: Path) -> None:
    data = make()
    data.batch_size = 2
    found = Tuner(finding_trainer(tmp_path)).scale_batch_size(
        classifier(data), datamodule=data, max_trials=3, steps_per_trial=1
    )
    assert found == data.batch_size == 8
    assert len(next(iter(data.train_dataloader())).labels) == 8


def finding_trainer(folder: Path) -> Trainer:
    return quiet_trainer(max_epochs=10, default_root_dir=folder, log_every_n_steps=1)
