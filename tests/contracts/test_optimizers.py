"""Every optimizer in conf/ trains with every learning rate scheduler."""

import math

import pytest
import torch
from configured import composed, options, pieces, trainer


@pytest.mark.parametrize("optimizer", options("optimizer"))
@pytest.mark.parametrize("lr_scheduler", options("lr_scheduler"))
def test_every_optimizer_with_every_lr_scheduler_learns(optimizer: str, lr_scheduler: str) -> None:
    module, data, _ = pieces(composed(f"optimizer={optimizer} lr_scheduler={lr_scheduler}"))
    before = {name: tensor.clone() for name, tensor in module.named_parameters()}
    fit = trainer()
    fit.fit(module, datamodule=data)
    assert math.isfinite(float(fit.callback_metrics["train/loss"]))
    assert all(not torch.equal(before[name], tensor) for name, tensor in module.named_parameters())
