"""Runs that are stopped anywhere and resumed, against runs that were never stopped: equal to the last bit."""

import random
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision, MulticlassRecall

from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.data.digits import digits
from lightning_prune.models.classifier import ImageClassifier
from scripts.kill_and_resume import Stop as Kill
from scripts.kill_and_resume import differences, equal, leaves, run_stopped, run_whole

BATCHES, EPOCHS = 10, 2

pytestmark = pytest.mark.filterwarnings(
    "ignore:You called `self.log:UserWarning",
    "ignore:.*Checkpoint directory .* exists:UserWarning",
    "ignore:It is recommended to use `self.log",
    "ignore:.*smaller than the logging interval",
)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws from every global generator for each sample."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(count, 6, generator=generator), torch.randint(3, (count,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.randn(6) + np.random.randn() + random.gauss(0, 1)
        return self.x[index] + 0.1 * noise.float(), self.y[index]


class Module(LightningModule):
    """Has everything that a checkpoint of Lightning forgets."""

    def __init__(self, workers: int = 0, plateau: bool = False, asks: bool = False) -> None:
        super().__init__()
        self.workers, self.plateau, self.asks = workers, plateau, asks
        self.net = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))
        self.accuracy, self.val_accuracy = MulticlassAccuracy(3), MulticlassAccuracy(3)
        self.coupled = MetricCollection([MulticlassPrecision(3), MulticlassRecall(3)])
        self.own_mean = MeanMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = F.cross_entropy(logits, y)
        self.log("loss", loss, on_step=True, on_epoch=True, sync_dist=True)
        for reduction in ("sum", "min", max):
            name = f"loss_{getattr(reduction, '__name__', reduction)}"
            self.log(name, loss, on_step=False, on_epoch=True, reduce_fx=reduction, sync_dist=True)
        if batch_idx % 3 == 0:  # twice in one step, and not in every step
            self.log("rare", loss, on_step=True, on_epoch=True, sync_dist=True)
            self.log("rare", 2 * loss, on_step=True, on_epoch=True, sync_dist=True)
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
        self.coupled.update(logits, y)
        self.log_dict(self.coupled, on_step=False, on_epoch=True)
        self.own_mean.update(loss)
        return loss

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:  # else all processes drop out the same
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_train_epoch_start(self) -> None:
        self.log("begun", torch.tensor(float(self.current_epoch)), sync_dist=True)

    def on_train_epoch_end(self) -> None:
        self.log("own_mean", self.own_mean.compute(), sync_dist=True)
        self.own_mean.reset()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.log("val_loss", F.cross_entropy(logits, y), sync_dist=True)
        self.val_accuracy.update(logits, y)
        self.log("val_accuracy", self.val_accuracy)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        count = 6 * BATCHES * self.trainer.world_size
        return DataLoader(Noisy(count), batch_size=6, shuffle=True, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(Noisy(20), batch_size=10)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if self.asks:
            assert self.trainer.estimated_stepping_batches > 0
        if self.plateau:
            plateau = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_loss"}}
        return [optimizer], [StepLR(optimizer, 1, 0.7)]


class Rows(Logger):
    """Keeps what is logged; a stopped run loses what it has logged behind its last checkpoint."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []
        self.saved: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Stop(KeyboardInterrupt):
    pass


class Stopping(Callback):
    """Interrupts before a batch, counted over all epochs, as Ctrl-C does, and saves what the run ends with."""

    def __init__(self, at: int | None, rows: Rows, final: Path) -> None:
        self.at, self.rows, self.final, self.begun = at, rows, final, 0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.begun == self.at:
            raise Stop
        self.begun += 1

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.final.exists():
            self.rows.saved = list(self.rows.rows)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.final.touch()
        trainer.save_checkpoint(self.final)


Curves = dict[tuple[int | None, str], float]


def fit(
    folder: Path,
    *,
    saving: dict[str, Any],
    workers: int = 0,
    plateau: bool = False,
    asks: bool = False,
    stop: int | None = None,
    resume: bool = False,
    seed: int = 1,
    exact: bool = True,
    **options: Any,
) -> Rows:
    seed_everything(seed, verbose=False)
    module, rows = Module(workers, plateau, asks), Rows()
    checkpoints = ModelCheckpoint(folder, "last", enable_version_counter=False, **saving)
    callbacks = [Stopping(stop, rows, folder / "final.ckpt"), *([ExactResume()] if exact else []), checkpoints]
    settings = {"max_epochs": EPOCHS, "log_every_n_steps": 1, **options}
    trainer = quiet_trainer(*callbacks, logger=rows, **settings)
    try:
        trainer.fit(module, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    except SystemExit:
        assert stop is not None
    return rows


def curves(*parts: Iterable[tuple[int | None, dict[str, float]]]) -> Curves:
    return {(step, name): value for part in parts for step, row in part for name, value in row.items()}


def final(folder: Path) -> dict[str, Any]:
    """Weights, optimizer, schedule and random state at the end of a run."""
    state = torch.load(folder / "final.ckpt", weights_only=True)
    kept = {name: state[name] for name in ("state_dict", "optimizer_states", "lr_schedulers")}
    process = state["callbacks"].get("ExactResume", {"processes": []})["processes"]
    return dict(leaves({**kept, "random": [state["random"] for state in process]}, str(folder)))


def compare(tmp_path: Path, stop: int, **options: Any) -> list[str]:
    """Return in what a run that is stopped and resumed differs from one that is not."""
    whole = fit(tmp_path / "whole", **options)
    stopped = fit(tmp_path / "stopped", stop=stop, **options)
    assert (tmp_path / "stopped/last.ckpt").is_file(), "it was stopped before its first checkpoint"
    resumed = fit(tmp_path / "stopped", resume=True, seed=99, **options)
    pairs = [
        (final(tmp_path / "whole"), final(tmp_path / "stopped")),
        (curves(whole.rows), curves(stopped.saved, resumed.rows)),
    ]
    return [str(name) for a, b in pairs for name in a.keys() | b.keys() if not equal(a.get(name), b.get(name))]


EVERY_3, EVERY_5, AT_VALIDATION = (
    {"every_n_train_steps": 3},
    {"every_n_train_steps": 5},
    {"save_on_train_epoch_end": False},
)
MOMENTS = random.Random(0)


@pytest.mark.parametrize(
    ("saving", "options"),
    [
        ({}, {}),
        ({}, {"plateau": True}),
        ({}, {"max_steps": 18, "max_epochs": None}),
        (EVERY_3, {}),
        (EVERY_3, {"workers": 1}),
        (EVERY_3, {"accumulate_grad_batches": 2}),
        (EVERY_3, {"plateau": True}),
        (EVERY_3, {"asks": True}),
        (EVERY_5, {"val_check_interval": 0.5}),
        (EVERY_5, {"max_steps": 18, "max_epochs": None}),
        (AT_VALIDATION, {"plateau": True}),
        (AT_VALIDATION, {"val_check_interval": 3, "accumulate_grad_batches": 2}),  # saves between batches of one step
    ],
    ids=str,
)
def test_resumed_run_ends_with_the_same_bits(tmp_path, saving, options):
    assert compare(tmp_path, MOMENTS.randrange(11, 18), saving=saving, **options) == []


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}], ids=str)
def test_checkpoint_on_the_last_batch_is_followed_by_the_end_of_its_epoch(tmp_path, options):
    assert compare(tmp_path, BATCHES, saving=EVERY_5, **options) == []


def test_without_the_callback_the_bits_differ(tmp_path):
    with pytest.warns(UserWarning, match="your dataloader is not resumable"):
        assert "/state_dict/net.0.weight" in compare(tmp_path, 16, saving=EVERY_3, exact=False)


def test_run_that_is_not_resumed_stays_as_it_is(tmp_path):
    rows = [fit(tmp_path / str(exact), saving={}, exact=exact) for exact in (True, False)]
    assert curves(rows[0].rows) == curves(rows[1].rows)


def test_stop_behind_the_last_checkpoint_loses_no_row(tmp_path):
    whole = fit(tmp_path, saving={})
    again = fit(tmp_path, saving={}, resume=True)
    assert curves(whole.rows) != curves(whole.saved)
    assert curves(whole.rows) == curves(whole.saved, again.rows)


def test_other_number_of_processes_is_said(tmp_path):
    fit(tmp_path, saving=EVERY_3, stop=14)
    file = tmp_path / "last.ckpt"
    state = torch.load(file, weights_only=True)
    state["callbacks"]["ExactResume"]["processes"] *= 2
    torch.save(state, file)
    with (
        pytest.warns(UserWarning, match="expected 2 processes as in the checkpoint, got 1"),
        pytest.warns(UserWarning, match="your dataloader is not resumable"),
    ):
        fit(tmp_path, saving=EVERY_3, resume=True)


def test_two_processes(tmp_path):
    options = {"devices": 2, "strategy": "ddp_spawn", "max_epochs": 2, "limit_val_batches": 0}
    # Each run that is spawned costs seconds, so the checkpoint of the whole run is the one that is resumed.
    fit(tmp_path / "whole", saving={"every_n_train_steps": 13}, **options)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "whole/last.ckpt").rename(tmp_path / "stopped/last.ckpt")
    saved = torch.load(tmp_path / "stopped/last.ckpt", weights_only=True)
    assert saved["global_step"] == 13
    states = [process["random"]["torch"] for process in saved["callbacks"]["ExactResume"]["processes"]]
    assert not torch.equal(*states)
    # Lightning's sampler draws from the seed that was set.
    fit(tmp_path / "stopped", saving={"every_n_train_steps": 13}, resume=True, seed=1, **options)
    whole, resumed = final(tmp_path / "whole"), final(tmp_path / "stopped")
    assert [name for name in whole if not equal(whole[name], resumed[name])] == []


class Asking(ImageClassifier):
    """Asks how long the run is before a checkpoint's loops are loaded, as many modules do."""

    def configure_optimizers(self) -> Any:
        assert self.trainer.estimated_stepping_batches > 0
        return super().configure_optimizers()


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_loaders_that_keep_their_place_do_so_when_a_module_asks_for_the_length(tmp_path):
    def run(*callbacks: Callback, **options: Any) -> LightningModule:
        torch.manual_seed(0)
        module = Asking(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 10)
        saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
        quiet_trainer(*callbacks, saving, limit_train_batches=6).fit(module, datamodule=digits(), **options)
        return module

    whole = run(ExactResume())
    resumed = run(ExactResume(), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_train_py_killed_and_resumed(tmp_path):
    options = ["strategy=gmp", "logger=csv", "trainer.max_epochs=4", "checkpoint_every_n_steps=3"]
    whole = threading.Thread(target=run_whole, args=(tmp_path / "whole", options))
    whole.start()
    assert run_stopped(tmp_path / "stopped", options, [Kill(4, 0.1, signal.SIGKILL)]) == 1
    whole.join()
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_script_sees_one_bit():
    assert not equal(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not equal(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    assert equal(torch.tensor([float("nan")]), torch.tensor([float("nan")]))
    nested = {"a": [1, {"b": "here/x"}]}
    assert dict(leaves(nested, "here")) == {"/a/0": 1, "/a/1/b": "/x"}
