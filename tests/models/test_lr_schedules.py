"""Schedulers that are stepped with each batch, or by a metric."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from made_images import module_of
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import ExactResume
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.lr_schedules import LRSchedule, OneCycle, PerStep, Plateau

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
]


class Rates(Callback):
    """Remember the learning rate and the momentum of each optimizer step."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
        group = optimizer.param_groups[0]
        self.seen.append((group["lr"], group.get("momentum", 0.0)))


def loader(batches: int = 4) -> DataLoader[Any]:
    images = torch.randn(2 * batches, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(2 * batches) % 3), batch_size=2)


def module_with(lr_scheduler: Any) -> Any:
    torch.manual_seed(0)
    optimizer = partial(SGD, lr=0.5, momentum=0.9)
    return ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), 3, optimizer, lr_scheduler)


def rates(lr_scheduler: Any, **settings: Any) -> list[tuple[float, float]]:
    watch = Rates()
    quiet_trainer(watch, **settings).fit(module_with(lr_scheduler), loader(), loader())
    return watch.seen


def reference(build: Callable[[SGD], Any], steps: int) -> list[tuple[float, float]]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    scheduler, seen = build(optimizer), []
    for _ in range(steps):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 6),
        ({"max_epochs": 3, "limit_train_batches": 3}, 9),
        ({"max_epochs": -1, "max_steps": 7}, 7),
    ],
)
def test_one_cycle_is_that_of_torch_over_all_optimizer_steps(settings: dict[str, int], steps: int) -> None:
    seen = rates(OneCycle(pct_start=0.4), **settings)
    assert seen == reference(lambda sgd: OneCycleLR(sgd, 0.5, steps, pct_start=0.4), steps)
    assert seen[0][0] == pytest.approx(0.5 / 25)
    assert seen[-1][0] == pytest.approx(0.5 / 25 / 1e4)


def test_each_parameter_group_has_its_own_peak() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    groups = [{"params": [network[1].weight], "lr": 0.1}, {"params": [network[1].bias], "lr": 1.0}]
    module = ImageClassifier(network, 3, lambda _: AdamW(groups), OneCycle(pct_start=0.5))
    peaks = [0.0, 0.0]

    class Peaks(Callback):
        def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Any) -> None:
            peaks[:] = [max(peak, group["lr"]) for peak, group in zip(peaks, optimizer.param_groups, strict=True)]

    quiet_trainer(Peaks()).fit(module, loader(), loader())
    assert peaks == pytest.approx([0.1, 1.0], rel=0.1)


def test_any_scheduler_of_torch_is_stepped_with_each_batch() -> None:
    cosine = PerStep(CosineAnnealingLR, length="T_max")
    assert rates(cosine) == reference(lambda sgd: CosineAnnealingLR(sgd, 8), 8)
    exponential = PerStep(partial(ExponentialLR, gamma=0.9))
    assert rates(exponential) == reference(lambda sgd: ExponentialLR(sgd, 0.9), 8)


@pytest.mark.parametrize("schedule", [OneCycle(), PerStep(CosineAnnealingLR, length="T_max")])
def test_a_run_without_an_end_is_refused_where_its_steps_are_counted(schedule: LRSchedule) -> None:
    with pytest.raises(InputError, match="lr_scheduler: expected a run whose optimizer steps can be counted"):
        quiet_trainer(max_epochs=-1).fit(module_with(schedule), loader(), loader())


@pytest.mark.parametrize(("mode", "expected"), [("min", [0.5, 0.5, 0.05, 0.005]), ("max", [0.5] * 4)])
def test_the_rate_falls_when_the_metric_has_stopped_to_get_better(mode: Any, expected: list[float]) -> None:
    class Worse(ImageClassifier):
        def on_validation_epoch_end(self) -> None:
            self.log("score", float(self.current_epoch))

    watch = Rates()
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    module = Worse(network, 3, partial(SGD, lr=0.5), Plateau("score", mode, patience=0))
    quiet_trainer(watch, max_epochs=4).fit(module, loader(), loader())
    assert [rate for rate, _ in watch.seen[::4]] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("schedule", [OneCycle(), Plateau("val/loss", patience=0)])
@pytest.mark.parametrize("step", [5, 7])
def test_a_resumed_run_ends_at_the_same_bits(tmp_path: Path, schedule: LRSchedule, step: int) -> None:
    def run(checkpoint: Path | None) -> tuple[Tensor, list[tuple[float, float]]]:
        torch.manual_seed(0)
        watch, network = Rates(), nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
        module = ImageClassifier(network, 4, partial(SGD, lr=0.5, momentum=0.9), schedule)
        save = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = quiet_trainer(watch, save, ExactResume(), max_epochs=3)
        trainer.fit(module, datamodule=module_of(), ckpt_path=checkpoint, weights_only=checkpoint and True)
        return network[1].weight.detach(), watch.seen

    (whole, seen), (resumed, rest) = run(None), run(tmp_path / f"step={step}.ckpt")
    assert rest == seen[step:]
    assert torch.equal(whole, resumed)
