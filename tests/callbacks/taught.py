"""Students and teachers, and their training."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.distillation.losses.hint import Hint
from lightning_prune.distillation.losses.match import Match

HINT = (Match("0", "0", Hint(), weight=0.5, adapt=True),)


SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def network(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


class Plain(LightningModule):
    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer] = SGD) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.net = network()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        return [optimizer], [StepLR(optimizer, step_size=1, gamma=0.5)]


def wide() -> nn.Sequential:
    torch.manual_seed(5)
    return network(12)


def distillation(**options: Any) -> KnowledgeDistillation:
    return KnowledgeDistillation(wide(), **({"weight": 0.7, "task_weight": 0.3, "student": "net"} | options))


def data(dtype: torch.dtype = torch.float32) -> TensorDataset:
    x = torch.randn(32, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    return TensorDataset(x, x[:, :3].argmax(dim=1))


def fit(
    module: Any, *callbacks: Callback, path: Path | None = None, dtype: Any = torch.float32, **settings: Any
) -> Trainer:
    trainer = quiet_trainer(*callbacks, **settings)
    trainer.fit(module, DataLoader(data(dtype), batch_size=8), ckpt_path=path)
    return trainer


def seeded(cls: type[Plain] = Plain, *arguments: Any) -> Plain:
    torch.manual_seed(0)
    return cls(*arguments)


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(tensor, states[1][name.replace("_orig_mod.", "")]) for name, tensor in states[0].items())
