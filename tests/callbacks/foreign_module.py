"""A module that knows nothing of pruning, and its training."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 5


CONVOLUTIONS = ("stem.0", "block.0", "block.3", "head.0")


class Foreign(LightningModule):
    """A LightningModule from outside: a residual block in functional style, nothing known of this package."""

    def __init__(self, lr: float = 0.05, dropout: float = 0.0) -> None:
        super().__init__()
        self.lr = lr
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.block = nn.Sequential(
            nn.Conv2d(16, 20, 3, padding=1, bias=False),
            nn.BatchNorm2d(20),
            nn.ReLU(),
            nn.Conv2d(20, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Sequential(nn.Conv2d(16, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout))
        self.out = nn.Linear(12 * 9, 4)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem(image))
        x = F.relu(x + self.block(x))
        logits: Tensor = self.out(self.head(x))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        return F.cross_entropy(self(image), label)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        image, label = batch
        self.log("val_loss", F.cross_entropy(self(image), label))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def loader(seed: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(BATCHES * 8, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, images.mean(dim=(1, 2, 3)).mul(20).long().clamp(-2, 1) + 2), batch_size=8)


def fit(module: LightningModule, *callbacks: Callback, epochs: int = 4, **options: Any) -> Trainer:
    resume = options.pop("ckpt_path", None)
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, num_sanity_val_steps=0, **options)
    trainer.fit(module, loader(), loader(1), ckpt_path=resume, weights_only=True)
    return trainer


def module(seed: int = 0, **options: Any) -> Foreign:
    torch.manual_seed(seed)
    return Foreign(**options)


def zero_filters(model: nn.Module) -> dict[str, list[int]]:
    weights = {name: model.get_submodule(name).weight.detach() for name in CONVOLUTIONS}
    return {name: (w.flatten(1) == 0).all(dim=1).nonzero().reshape(-1).tolist() for name, w in weights.items()}


class Watch(Callback):
    """Record what the weights are when the Trainer calls its other parts."""

    def __init__(self) -> None:
        self.before_reset: list[dict[str, Tensor]] = []
        self.batches: list[dict[str, list[int]]] = []
        self.validations: list[dict[str, list[int]]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.batches.append(zero_filters(pl_module))
        if trainer.is_last_batch:
            self.before_reset.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.validations.append(zero_filters(pl_module))


def counts(zeros: dict[str, list[int]]) -> list[int]:
    return [len(zeros[name]) for name in CONVOLUTIONS]
