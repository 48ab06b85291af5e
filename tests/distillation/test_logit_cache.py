"""What a teacher said to the images of a training step, looked up."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.distillation.logit_cache import CountedViews, LogitCache
from lightning_prune.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")

COUNT, CLASSES, BATCH, VIEWS = 23, 4, 5, 3
HALF_STEP = 2.0**-11  # of float16, relative


def images(count: int, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 6, 6), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % CLASSES)


def data(views: int | None = VIEWS, padding: int = 2, flip: bool = True, count: int = COUNT) -> InMemoryImages:
    return InMemoryImages(
        train=images(count),
        val=images(7, seed=1),
        test=images(7, seed=2),
        num_classes=CLASSES,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3),
        padding=padding,
        flip=flip,
        batch_size=BATCH,
        seed=0,
        views=views,
    )


class Teacher(nn.Module):
    """A small network that counts the images it is asked about."""

    def __init__(self, scale: float = 3.0) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.last = nn.Linear(128, CLASSES)
        self.scale = scale
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return self.scale * self.last(self.features(x))


def teacher(scale: float = 3.0) -> Teacher:
    torch.manual_seed(1)
    network = Teacher(scale).requires_grad_(False)
    network(torch.randn(64, 3, 6, 6) * 2 + 1)  # batch statistics that differ from those of the images
    network.asked = 0
    return network


class Student(LightningModule):
    """A linear classifier that asks the teacher in each step what it can look up as well."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.net = nn.Linear(108, CLASSES)
        self.outside = (network,)  # in a tuple, so that Lightning does not train it
        self.asked_by_epoch: list[int] = []
        self.looked_up: list[Tensor] = []
        self.expected: list[Tensor] = []
        self.evaluated = 0

    def on_train_start(self) -> None:
        self.cache = LogitCache(self.trainer, self.outside[0])
        self.cache.start_epoch(self.trainer, self.current_epoch)  # Lightning starts no epoch again that goes on

    def on_train_epoch_start(self) -> None:
        self.cache.start_epoch(self.trainer, self.current_epoch)
        self.asked_by_epoch.append(getattr(self.outside[0], "asked", 0))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        network, (x, y) = self.outside[0], batch
        self.looked_up.append(self.cache.logits())
        before = getattr(network, "asked", 0)
        with torch.no_grad():
            self.expected.append(network.eval()(x).float())
        network.train()
        network.asked = before
        return nn.functional.cross_entropy(self.net(x.flatten(1)), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluated += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def compare(self, relative: float = HALF_STEP) -> None:
        assert self.looked_up
        for found, expected in zip(self.looked_up, self.expected, strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, expected, rtol=relative, atol=1e-5)


def trainer(**options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(**{**quiet, "enable_checkpointing": False, "num_sanity_val_steps": 0, "max_epochs": 4, **options})


def fit(module: InMemoryImages | None = None, network: nn.Module | None = None, **options: Any) -> Student:
    student = Student(network or teacher())
    trainer(**options).fit(student, datamodule=module or data())
    return student


# What is looked up


def test_each_step_finds_what_the_teacher_says_to_its_images() -> None:
    student = fit(max_epochs=2 * VIEWS)
    assert [len(found) for found in student.looked_up] == [5, 5, 5, 5, 3] * 2 * VIEWS
    student.compare()
    assert len({found.sum().item() for found in student.looked_up}) == len(student.looked_up)


def test_the_teacher_is_not_asked_again_once_all_views_were_shown() -> None:
    student = fit(max_epochs=3 * VIEWS)
    whole = -(-COUNT // BATCH) * BATCH
    assert student.asked_by_epoch == [whole, 2 * whole] + [3 * whole] * (3 * VIEWS - 2)


def test_the_first_time_gives_the_same_bits_as_all_later_ones() -> None:
    student = fit(data(views=1), max_epochs=2)
    tables = []
    for epoch in (student.looked_up[:5], student.looked_up[5:]):
        table = torch.cat(epoch)
        tables.append(table[table[:, 0].argsort()])
    assert torch.equal(*tables)
    assert torch.equal(tables[0], tables[0].half().float())


@pytest.mark.parametrize(("padding", "flip", "views"), [(0, False, None), (0, False, 1), (0, True, 2), (2, True, 50)])
def test_all_views_there_are_can_be_counted(padding: int, flip: bool, views: int | None) -> None:
    fit(data(views, padding, flip)).compare()


def test_one_image_is_enough() -> None:
    fit(data(views=2, count=1)).compare()


def test_validation_within_an_epoch_leaves_the_training_batch_alone() -> None:
    student = fit(val_check_interval=2)
    assert student.evaluated == 16
    student.compare()


def test_overfitting_shows_images_as_they_are() -> None:
    module = data()
    student = fit(module, overfit_batches=2)
    student.compare()
    assert module.countable_views == 1
    assert len(student.looked_up) == 8


@pytest.mark.parametrize(("precision", "relative"), [("bf16-mixed", 2.0**-6), ("64-true", HALF_STEP)])
def test_the_teacher_answers_in_the_precision_of_the_trainer(precision: Any, relative: float) -> None:
    network = teacher()
    network = network.double() if precision == "64-true" else network
    student = fit(network=network, precision=precision)
    student.compare(relative)
    # bfloat16 has fewer digits than float16: what it gave is kept as it is.
    kept = torch.cat(student.looked_up)
    assert torch.equal(kept, kept.bfloat16().float()) == (precision == "bf16-mixed")


def test_what_float16_cannot_hold_is_clamped() -> None:
    student = fit(network=teacher(scale=1e6), max_epochs=1)
    found, expected = torch.cat(student.looked_up), torch.cat(student.expected)
    assert expected.abs().max() > 70_000
    torch.testing.assert_close(found, expected.clamp(-65_504, 65_504), rtol=HALF_STEP, atol=1e-5)


def test_looking_up_neither_reads_nor_moves_the_global_generator() -> None:
    module, network = data(), teacher().requires_grad_(True)
    runner = trainer()
    runner.datamodule = module
    tables = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        cache = LogitCache(runner, network)
        cache.start_epoch(runner, 1)
        assert torch.equal(torch.get_rng_state(), before)
        module.last_samples = torch.arange(COUNT)
        tables.append(cache.logits())
    assert torch.equal(*tables)
    assert not tables[0].requires_grad


# Stopped runs and several processes


@pytest.mark.parametrize("done", [5, 7, 18])
def test_a_resumed_run_looks_up_the_same_bits_and_asks_for_no_more(tmp_path: Path, done: int) -> None:
    def run(checkpoint: Path | None) -> Student:
        keep = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
        student, runner = Student(teacher()), trainer(callbacks=[keep], enable_checkpointing=True)
        runner.fit(student, datamodule=data(), ckpt_path=checkpoint, weights_only=checkpoint and True)
        return student

    whole, resumed = run(None), run(tmp_path / f"step={done}.ckpt")
    assert len(resumed.looked_up) == 20 - done
    for found, expected in zip(resumed.looked_up, whole.looked_up[done:], strict=True):
        assert torch.equal(found, expected)
    epochs_left = 4 - done // 5
    assert resumed.outside[0].asked == 25 * min(epochs_left, VIEWS)


class Sharing(Student):
    """Check in each process what it looked up, and leave what all of them have in a file."""

    folder: Path

    def on_fit_end(self) -> None:
        self.compare()
        assert self.outside[0].asked == 15 * min(VIEWS, self.trainer.max_epochs)
        torch.save(self.cache._logits, self.folder / f"{self.trainer.world_size}-{self.trainer.global_rank}.pt")


def test_two_processes_share_the_work_and_know_the_same(tmp_path: Path) -> None:
    student = Sharing(teacher())
    student.folder = tmp_path
    trainer(devices=2, strategy="ddp_spawn").fit(student, datamodule=data())
    alone = fit().cache._logits
    for rank in range(2):
        shared = torch.load(tmp_path / f"2-{rank}.pt")
        assert list(shared) == list(alone) == [0, 1, 2]
        for view, table in alone.items():
            assert table.shape == (COUNT, CLASSES)
            assert table.dtype == torch.float16
            assert torch.equal(shared[view], table)


# Refusals


class PlainData(LightningDataModule):
    """Serve batches and nothing else."""

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(torch.zeros(4, 3, 6, 6), torch.arange(4)), batch_size=2)


def attached(module: LightningDataModule | None) -> Trainer:
    runner = trainer()
    runner.datamodule = module
    return runner


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (None, "expected a data module whose views can be counted, got none; pass one by Trainer.fit(datamodule=...)"),
        (PlainData(), "expected a data module with countable_views and at_view, got PlainData, which has none"),
        (
            data(views=None),
            "expected images in views that can be counted, got random ones; set data.views, such as data.views=8",
        ),
    ],
)
def test_images_that_cannot_be_looked_up_are_refused(module: LightningDataModule | None, reason: str) -> None:
    runner = attached(module)
    assert LogitCache.reason_against(runner) == reason
    with pytest.raises(InputError, match="^" + re.escape(reason) + "$"):
        LogitCache(runner, teacher())


def test_there_is_nothing_against_counted_views() -> None:
    assert isinstance(data(), CountedViews)
    assert LogitCache.reason_against(attached(data())) is None


@pytest.mark.parametrize(
    ("network", "came"),
    [
        (nn.Conv2d(3, 4, 3), "(5, 4, 4, 4)"),
        (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 4))), "(135, 4)"),
        (type("Pair", (nn.Module,), {"forward": lambda self, x: (x, x)})(), "a tuple"),
    ],
)
def test_a_teacher_without_logits_is_refused(network: nn.Module, came: str) -> None:
    runner = attached(data())
    message = f"expected a teacher that gives logits (5, classes), got {came}"
    with pytest.raises(InputError, match="^" + re.escape(message) + "$"):
        LogitCache(runner, network).start_epoch(runner, 0)
