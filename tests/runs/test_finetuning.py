"""The second training of a slim model: where it begins, and what stays."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from lightning_prune import save_slim
from lightning_prune.callbacks.inherited_momentum import InheritedMomentum
from lightning_prune.data.digits import digits
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.pruning.held_masks import nonzeros
from lightning_prune.reporting.run_folder import RunFolder
from lightning_prune.runs.finetuning import start_finetuning


def build() -> ImageClassifier:
    torch.manual_seed(3)
    layers = (nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    return ImageClassifier(nn.Sequential(*layers), 10, lr_scheduler=lambda optimizer: MultiStepLR(optimizer, [1], 0.5))


def fit(module: ImageClassifier, *callbacks: Callback, epochs: int, **options: object) -> None:
    trainer = Trainer(
        max_epochs=epochs,
        limit_train_batches=3,
        limit_val_batches=1,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks],
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=digits(), **options)


def test_control_has_random_weights_and_the_zeros_of_the_pruned_one(tmp_path: Path) -> None:
    pruned = build()
    torch.manual_seed(4)
    zeros = torch.rand(16, 64) < 0.5
    pruned.get_parameter("network.1.weight").data.normal_()[zeros] = 0
    nn.init.normal_(pruned.get_parameter("network.2.bias"))
    save_slim(pruned, RunFolder(tmp_path).slim)
    module, callbacks = start_finetuning(build, RunFolder(tmp_path), scratch=True, momentum=False)
    assert torch.equal(module.get_parameter("network.4.weight"), build().get_parameter("network.4.weight"))
    fit(module, *callbacks, epochs=1)
    weight, bias = module.get_parameter("network.1.weight"), module.get_parameter("network.2.bias")
    assert torch.equal(weight == 0, zeros)
    assert bias.all()  # it began at zero, but was not pruned
    goes_on, _ = start_finetuning(build, RunFolder(tmp_path), scratch=False, momentum=False)
    assert nonzeros(goes_on).keys() == {"network.1.weight"}
    assert all(torch.equal(value, pruned.state_dict()[name]) for name, value in goes_on.state_dict().items())


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_first_step_has_the_inherited_momentum_and_a_resumed_fit_its_own(tmp_path: Path) -> None:
    states = {name: {"momentum_buffer": torch.ones_like(p)} for name, p in build().named_parameters()}
    whole, plain, part = build(), build(), build()
    fit(whole, InheritedMomentum(states), epochs=2)
    fit(plain, epochs=2)
    saving = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    fit(part, InheritedMomentum(states), saving, epochs=1)
    rates = torch.load(tmp_path / "last.ckpt", weights_only=True)["lr_schedulers"]
    assert rates[0]["base_lrs"] == [0.1]
    saving = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    resumed = build()
    fit(resumed, InheritedMomentum(states), saving, epochs=2, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name
        assert not torch.equal(parameter, plain.get_parameter(name)), name
