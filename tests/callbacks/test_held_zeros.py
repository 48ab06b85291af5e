"""Fine-tuning after single weights were pruned."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_prune.callbacks.held_zeros import HeldZeros
from lightning_prune.data.digits import digits
from lightning_prune.models.classifier import ImageClassifier


def pruned() -> tuple[ImageClassifier, dict[str, torch.Tensor]]:
    """Return a module with zeros among its weights, and where they are."""
    torch.manual_seed(0)
    module = ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)), 10)
    zeros = {"network.1.weight": torch.rand(16, 64) < 0.5, "network.1.bias": torch.arange(16) < 4}
    for name, places in zeros.items():
        module.get_parameter(name).data[places] = 0
    return module, zeros


def fit(module: ImageClassifier, *callbacks: object, epochs: int = 2, **options: object) -> None:
    trainer = Trainer(
        max_epochs=epochs,
        limit_train_batches=3,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks],
        enable_checkpointing=len(callbacks) > 1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=digits(), **options)


def test_zeros_stay_and_all_else_trains():
    module, zeros = pruned()
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    fit(module, HeldZeros())
    for name, weight in module.named_parameters():
        places = zeros.get(name, torch.zeros_like(weight, dtype=torch.bool))
        assert not weight[places].any()
        assert (weight != before[name])[~places].float().mean() > 0.5


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_resumed_training_knows_the_zeros_from_its_checkpoint(tmp_path):
    module, zeros = pruned()
    fit(module, HeldZeros(), ModelCheckpoint(tmp_path, "last", enable_version_counter=False))
    other, _ = pruned()
    nn.init.normal_(other.get_parameter("network.1.weight"))
    saving = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    fit(other, HeldZeros(), saving, epochs=3, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(other.get_parameter("network.1.weight") == 0, zeros["network.1.weight"])
