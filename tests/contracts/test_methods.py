"""Every method in conf/ ends in an equal slim model and resumes to the same bits; a new yaml is tested at once.

The two promises stand together because both look at the same whole runs.
"""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from configured import EPOCHS, METHODS, composed, options, pieces, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_prune import SparsityMonitor, load_slim, save_slim, slim
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.callbacks.weight_sharing import WeightSharing
from lightning_prune.graph.interception import suspended
from lightning_prune.graph.tracing import stored_tensors
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.reporting.profiling import macs


@functools.cache
def trained(overrides: str) -> tuple[ImageClassifier, Any, list[Callback], Trainer]:
    """Return what a whole run ends with; two tests look at it, and neither changes it."""
    module, data, callbacks = pieces(composed(overrides))
    fit = trainer(*callbacks, SparsityMonitor())
    fit.fit(module, datamodule=data)
    return module, data, callbacks, fit


@pytest.mark.parametrize("overrides", METHODS)
def test_every_method_ends_in_an_equal_slim_model(overrides: str, tmp_path: Path) -> None:
    cfg = composed(overrides)
    module, data, callbacks, fit = trained(overrides)
    images = data.example_input(16)
    small = slim(module, images)
    with torch.no_grad(), suspended():
        masked, slimmed = module.eval()(images), small.eval()(images)
    torch.testing.assert_close(slimmed, masked, rtol=0, atol=1e-4 * float(masked.abs().max()))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (module, small)]
    assert sizes[1] / sizes[0] == pytest.approx(float(fit.callback_metrics["params/ratio"]))
    costs = [macs(model, images) for model in (module, small)]
    assert costs[1] / costs[0] == pytest.approx(float(fit.callback_metrics["macs/ratio"]))
    pruners = [callback for callback in callbacks if isinstance(callback, Pruner)]
    assert all(pruner.is_final for pruner in pruners)
    zeros = float(fit.callback_metrics["sparsity/total"])
    removing = [pruner for pruner in pruners if not isinstance(pruner, WeightSharing)]
    assert zeros > 0.1 if removing else zeros < 1e-3  # one of the values that weights share may be zero
    if any(isinstance(pruner.granularity, Channel) for pruner in pruners):
        assert sizes[1] < 0.85 * sizes[0]
    else:
        assert sizes[1] <= sizes[0]
    save_slim(small, tmp_path / "slim.pt")
    again = load_slim(pieces(cfg)[0], tmp_path / "slim.pt").eval()
    with torch.no_grad():
        assert torch.equal(again(images), slimmed)


class Interrupt(Callback):
    """End the run before a batch of the given epoch, as Ctrl-C does."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.epoch, self.batch = epoch, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            raise KeyboardInterrupt


MOMENTS = [(method, 2, 1) for method in METHODS] + [
    (f"strategy={name}", *moment) for name in options("strategy") for moment in ((1, 0), (EPOCHS - 1, 2))
]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(("overrides", "epoch", "batch"), MOMENTS)
def test_every_method_resumes_to_the_same_bits(overrides: str, epoch: int, batch: int, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False)
    module, data, callbacks = pieces(composed(overrides))
    with pytest.raises(SystemExit):
        trainer(*callbacks, checkpoint, Interrupt(epoch, batch)).fit(module, datamodule=data)
    module, data, callbacks = pieces(composed(overrides))
    trainer(*callbacks, checkpoint).fit(module, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, tensor in stored_tensors(trained(overrides)[0]).items():
        assert torch.equal(stored_tensors(module)[name], tensor), name
