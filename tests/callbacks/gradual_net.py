"""A network to prune gradually, and its training."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 10


class Net(LightningModule):
    """Three convolutions and a linear layer on images of 8 x 8."""

    def __init__(self, optimizer: str = "sgd", norm: bool = True) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.middle = nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.last(F.relu(self.middle(x))))
        return self.head(x.mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), lr=1e-2)
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)}


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(BATCHES * 4, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.randint(4, (len(images),), generator=generator)), batch_size=4)


def fitted(*callbacks: Callback, module: LightningModule | None = None, **settings: Any) -> LightningModule:
    torch.manual_seed(0)
    module = module or Net()
    quiet_trainer(*callbacks, **settings).fit(module, data())
    return module


class Record(Callback):
    """Keep the weights after every batch, and the optimizer's running averages."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.momenta: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        (optimizer,) = trainer.optimizers
        self.weights.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})
        averages = {}
        for name, p in pl_module.named_parameters():
            state = optimizer.state.get(p, {})
            averages[name] = state.get("momentum_buffer", state.get("exp_avg", torch.zeros_like(p))).clone()
        self.momenta.append(averages)
        self.rates.append(optimizer.param_groups[0]["lr"])

    def zeros(self, name: str) -> list[int]:
        return [int((weights[name] == 0).sum()) for weights in self.weights]


WEIGHTS = ("stem", "middle", "last", "head")
