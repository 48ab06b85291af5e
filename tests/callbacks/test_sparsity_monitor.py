"""What SparsityMonitor logs, against numbers worked by hand."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader

from lightning_prune import SparsityMonitor, slim
from lightning_prune.models.resnet import ResNet
from lightning_prune.reporting.profiling import macs
from lightning_prune.slimming.zero_modules import ZeroOutput


class Net(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 2, 1)
        self.out = nn.Linear(2, 3)

    def forward(self, image: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(image))).mean(dim=(2, 3))
        return self.out(x)  # type: ignore[no-any-return]

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch).square().mean()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Zero(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        with torch.no_grad():
            pl_module.get_parameter("first.weight")[1:3] = 0  # two whole filters: 18 of 36 weights
            pl_module.get_parameter("second.weight")[0, 0] = 0  # one weight of 8
            pl_module.get_parameter("out.bias")[:] = 0  # a bias is no weight of a layer


def test_metrics_are_counted_in_the_weights() -> None:
    trainer = quiet_trainer(Zero(), SparsityMonitor(), max_epochs=1)
    trainer.fit(Net(), DataLoader(torch.randn(5, 1, 6, 6), batch_size=5))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["sparsity/first"] == 18 / 36
    assert metrics["sparsity/second"] == 1 / 8
    assert metrics["sparsity/out"] == 0
    assert metrics["sparsity/total"] == pytest.approx(19 / (36 + 8 + 6))
    # 4 x 4 positions: 16 * (36 + 8) + 6 multiply-accumulates, of which half of both convolutions' stay
    assert metrics["macs/ratio"] == pytest.approx((16 * (18 + 4) + 6) / (16 * (36 + 8) + 6))
    # 36 + 4 and 8 + 2 and 6 + 3 parameters: the first layer loses 18 + 2, the second 4
    assert metrics["params/ratio"] == pytest.approx((59 - 24) / 59)


def test_progress_bar_shows_the_total() -> None:
    class Bar(Callback):
        shown: dict[str, float]

        def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.shown = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}

    bar = Bar()
    trainer = quiet_trainer(SparsityMonitor(), bar, max_epochs=1)
    trainer.fit(Net(), DataLoader(torch.randn(5, 1, 6, 6), batch_size=5))
    assert set(bar.shown) == {"sparsity/total"}


def test_weights_of_every_kind_of_layer_count_trained_or_not() -> None:
    class Mixed(Net):
        def __init__(self) -> None:
            super().__init__()
            self.first = parametrizations.weight_norm(nn.Conv2d(1, 4, 3))
            self.second = parametrizations.spectral_norm(nn.Conv2d(4, 2, 1))
            self.words = nn.Embedding(9, 2)
            self.recurrent = nn.LSTM(2, 3, batch_first=True)
            self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
            self.out.requires_grad_(False)

        def forward(self, image: Tensor) -> Tensor:
            x = self.second(torch.relu(self.first(image))).flatten(2).mT + self.words.weight[0]
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return self.out(x.mean(dim=1)) + self.recurrent(x)[0].mean(dim=1)  # type: ignore[no-any-return]

    class ZeroMixed(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            with torch.no_grad():
                pl_module.get_parameter("first.parametrizations.weight.original1")[1:3] = 0
                pl_module.get_parameter("second.parametrizations.weight.original")[0, 0] = 0
                pl_module.get_parameter("words.weight")[:] = 0
                pl_module.get_parameter("recurrent.weight_ih_l0")[:3] = 0
                pl_module.get_parameter("attention.in_proj_weight")[:2] = 0
                pl_module.get_parameter("out.weight")[0] = 0

    trainer = quiet_trainer(ZeroMixed(), SparsityMonitor(), max_epochs=1)
    trainer.fit(Mixed(), DataLoader(torch.randn(5, 1, 6, 6), batch_size=5))
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("sparsity/")}
    assert metrics.pop("sparsity/total") == pytest.approx((18 + 1 + 6 + 4 + 2) / (36 + 8 + 24 + 36 + 12 + 4 + 6))
    assert metrics == pytest.approx(
        {
            "sparsity/first": 18 / 36,
            "sparsity/second": 1 / 8,
            "sparsity/recurrent.weight_ih_l0": 6 / 24,
            "sparsity/recurrent.weight_hh_l0": 0,
            "sparsity/attention": 4 / 12,
            "sparsity/attention.out_proj": 0,
            "sparsity/out": 2 / 6,
        }
    )


def test_ratios_are_those_of_a_slim_model_without_silent_blocks() -> None:
    class Residual(Net):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet((1, 2, 1), (4, 8, 16), in_channels=1)

        def forward(self, image: Tensor) -> Tensor:
            return self.net(image)  # type: ignore[no-any-return]

    class Silence(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
            for name in ("layer2.1", "layer3.0"):  # the scale and shift alone, as a mask of zero makes them
                nn.init.zeros_(pl_module.get_parameter(f"net.{name}.bn2.weight"))
                nn.init.zeros_(pl_module.get_parameter(f"net.{name}.bn2.bias"))

    module, images = Residual(), torch.randn(5, 1, 8, 8)
    dense = macs(module, images), sum(parameter.numel() for parameter in module.parameters())
    trainer = quiet_trainer(Silence(), SparsityMonitor(), max_epochs=1)
    trainer.fit(module, DataLoader(images, batch_size=5))
    small = slim(module, images)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert isinstance(small.get_submodule("net.layer2.1.bn2"), ZeroOutput)
    assert metrics["macs/ratio"] == pytest.approx(macs(small, images) / dense[0])
    # conv1, conv2, bn1 and bn2 of both blocks; half of the last stage was padding, which the classifier does not read
    lost = (2 * 9 * 8 * 8 + 4 * 8) + (9 * 8 * 16 + 9 * 16 * 16 + 4 * 16) + 10 * 8
    assert metrics["params/ratio"] == pytest.approx((dense[1] - lost) / dense[1])
