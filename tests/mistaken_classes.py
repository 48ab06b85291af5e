"""Classes that a person might name by `_target_`, each with one mistake in it."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

INSTANCE = nn.Linear(8, 2)
NUMBER = 3


def function(num_classes: int) -> int:
    return num_classes


class Plain:
    """No module of any kind."""


class Net(nn.Module):
    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class NeedsWidth(nn.Module):
    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()


class Raises(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        raise KeyError("layers")


class FewClasses(Net):
    def __init__(self) -> None:
        super().__init__(3)


class ThreeChannels(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


class Lit(LightningModule):
    def __init__(self, network: nn.Module | None = None, lr: float = 0.1) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return self(batch[0]).square().mean()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/loss", self(batch[0]).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class NoTrainingStep(Lit):
    training_step = None


class NoOptimizers(Lit):
    configure_optimizers = LightningModule.configure_optimizers


class NoInit(Lit):
    def __init__(self) -> None:
        self.layer = nn.Linear(8, 2)


class Data(LightningDataModule):
    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.size = size

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.randn(self.size, 8)), batch_size=4, num_workers=0)

    val_dataloader = train_dataloader


class NoTrain(Data):
    train_dataloader = LightningDataModule.train_dataloader

    def val_dataloader(self) -> Any:
        return Data().val_dataloader()


class NoVal(Data):
    val_dataloader = LightningDataModule.val_dataloader


class MissingFile(Data):
    def setup(self, stage: str) -> None:
        raise FileNotFoundError("no such file: images.npy")
