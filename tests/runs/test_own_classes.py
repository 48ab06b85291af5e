"""Anybody's network, module, data and callback at the command line, from the folder in which they lie."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ROOT, run_here, the
from hydra.utils import instantiate

from lightning_prune import load_slim
from lightning_prune.reporting.summary import read_summary

SHORT = ["trainer.max_epochs=2", "logger=csv", "export=null", "baseline=none"]
OWN = ["module._target_=own_module.LitRegressor", "data._target_=own_data.Waves", "monitor=val/mean_error"]

TASKS = '''
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Task(LightningModule):
    def loss(self, batch):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), batch_size=4)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch), batch_size=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Detector(Task):
    """Takes lists of images of all sizes, as those of torchvision do."""

    def __init__(self):
        super().__init__()
        self.features, self.box = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, images):
        return [self.box(self.features(image[None]).mean(dim=(2, 3)))[0] for image in images]

    def loss(self, batch):
        images, targets = batch
        return torch.stack([F.mse_loss(o, t["box"]) for o, t in zip(self(images), targets, strict=True)]).mean()


class Segmenter(Task):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 1))

    def forward(self, images):
        return self.layers(images)

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])


class LanguageModel(Task):
    def __init__(self, words=30, width=16):
        super().__init__()
        self.embedding, self.head = nn.Embedding(words, width), nn.Linear(width, words)
        self.layer = nn.TransformerEncoderLayer(width, 2, 32, batch_first=True)

    def forward(self, input_ids):
        return self.head(self.layer(self.embedding(input_ids)))

    def loss(self, batch):
        return F.cross_entropy(self(batch["input_ids"])[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten())


class Samples(LightningDataModule):
    def __init__(self, kind):
        super().__init__()
        self.kind, draw = kind, torch.Generator().manual_seed(0)
        self.samples = [self.sample(number, draw) for number in range(16)]

    def sample(self, number, draw):
        if self.kind == "words":
            return {"input_ids": torch.randint(0, 30, (9,), generator=draw)}
        if self.kind == "pixels":
            return torch.randn(3, 8, 8, generator=draw), torch.randint(0, 5, (8, 8), generator=draw)
        return torch.randn(3, 8 + number % 3, 9, generator=draw), {"box": torch.rand(4, generator=draw)}

    def loader(self):
        together = None if self.kind != "boxes" else lambda samples: tuple(zip(*samples, strict=True))
        return DataLoader(self.samples, 4, collate_fn=together)

    def train_dataloader(self):
        return self.loader()

    def val_dataloader(self):
        return self.loader()

    def test_dataloader(self):
        return self.loader()


class Counted(Samples):
    """Says whenever its test data is read."""

    def __init__(self):
        super().__init__("pixels")

    def test_dataloader(self):
        return DataLoader(Said(self.samples), 16)


class Said(list):
    def __getitem__(self, number):
        if number == 0:
            print("read")
        return super().__getitem__(number)


class Template(Task):
    """Takes its parts, under the names of the Lightning-Hydra template."""

    def __init__(self, net, optimizer, scheduler, compile=False):
        super().__init__()
        self.net, self.optimizer, self.scheduler = net, optimizer, scheduler

    def forward(self, x):
        return self.net(x)

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = self.optimizer(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": self.scheduler(optimizer)}
'''


FACTORY = """
from own_network import Net


def net(**options):
    return build(**options)


def build(num_classes=1000):
    return Net(8, num_classes)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with the examples of own classes, and with tasks of other kinds."""
    shutil.copytree(ROOT / "examples/own", tmp_path / "own", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "own/tasks.py").write_text(TASKS)
    return tmp_path / "own"


def run(folder: Path, *words: str) -> tuple[Path, dict[str, Any]]:
    result = run_here("train.py", *words, cwd=folder)
    assert result.returncode == 0, result.stderr
    run_folder = the(folder.glob("outputs/2*/*"))
    return run_folder, json.loads((run_folder / "summary.json").read_text())


def test_own_network_is_given_classes_and_channels_and_ends_slim(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["model._target_=own_network.Net", "model.width=12", "strategy=sfp", "trainer.limit_train_batches=3"]
    folder, summary = run(own, *words, *SHORT)
    assert summary["predictions_equal"] is True
    assert summary["rows"]["slim"]["parameters"] < 0.6 * summary["rows"]["masked"]["parameters"]
    monkeypatch.syspath_prepend(own)
    saved = torch.load(folder / "slim.pt", weights_only=True)
    assert saved["build"]["network"] == {
        "_target_": "own_network.Net",
        "width": 12,
        "num_labels": 10,
        "in_chans": 1,
    }
    small = load_slim(instantiate(saved["build"]), folder / "slim.pt")
    assert small(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_own_module_and_data_get_a_table_with_their_metric(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, summary = run(own, *OWN, "data.samples=400", "module.width=20", "strategy=sfp", *SHORT)
    assert summary["metric"] == {"name": "mean_error", "mode": "min", "split": "test"}
    rows = summary["rows"]
    assert list(rows) == ["baseline", "masked", "slim"]
    assert rows["baseline"]["mean_error"] is None
    assert rows["slim"]["mean_error"] == pytest.approx(rows["masked"]["mean_error"], rel=1e-5)
    monkeypatch.syspath_prepend(own)
    saved = torch.load(folder / "slim.pt", weights_only=True)
    small = load_slim(instantiate(saved["build"]), folder / "slim.pt").eval()
    inputs = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))[3::4]
    targets = torch.sin(inputs[:, 0]) * inputs[:, 1] + inputs[:, 2]
    # The mean of batches of 64 and 36, each weighted by its size.
    assert rows["slim"]["mean_error"] == pytest.approx(float((small(inputs) - targets).detach().abs().mean()), rel=1e-5)
    # Its best epoch is the one with the smallest error, not the largest.
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["callbacks"]
    state = next(value for key, value in best.items() if key.startswith("BestPrunedCheckpoint"))
    logged = [
        row["val/mean_error"] for row in csv.DictReader((folder / "csv/version_0/metrics.csv").read_text().splitlines())
    ]
    assert float(state["best_model_score"]) == pytest.approx(min(float(value) for value in logged if value), rel=1e-4)


@pytest.mark.parametrize(
    ("task", "kind", "strategy", "slim"),
    [
        ("Detector", "boxes", "gmp", False),
        ("Segmenter", "pixels", "sfp", True),
        ("LanguageModel", "words", "gmp granularity=output_channel", True),
    ],
)
def test_detection_segmentation_and_language_end_in_a_table(
    task: str, kind: str, strategy: str, slim: bool, own: Path
) -> None:
    words = [f"module._target_=tasks.{task}", "data._target_=tasks.Samples", f"data.kind={kind}", "monitor=val_loss"]
    folder, summary = run(own, *words, *f"strategy={strategy}".split(), *SHORT)
    rows = summary["rows"]
    assert list(rows) == ["baseline", "masked", *(["slim"] if slim else [])]
    assert rows["masked"]["loss"] > 0
    assert rows["masked"]["nonzeros"] < rows["masked"]["parameters"]
    assert (rows["masked"]["macs"] is None) == (not slim)
    assert (folder / "slim.pt").exists() == slim
    if slim:
        assert rows["slim"]["loss"] == pytest.approx(rows["masked"]["loss"], rel=1e-4)


def test_test_data_is_read_once_a_model(own: Path) -> None:
    words = ["module._target_=tasks.Segmenter", "data._target_=tasks.Counted", "monitor=val_loss", "strategy=sfp"]
    words += ["finetune=labels", "trainer.max_epochs=2", "logger=csv", "export=exported-program", "hydra.run.dir=run"]
    result = run_here("train.py", *words, cwd=own)
    assert result.returncode == 0, result.stderr
    rows = read_summary(own / "run/summary.json").rows
    assert [row.name for row in rows] == ["baseline", "masked", "slim", "fine-tuned", "exported"]
    assert all(math.isfinite(row.score) for row in rows)
    assert result.stdout.split().count("read") == len(rows)


def test_module_is_given_its_parts_by_the_names_that_it_has_for_them(own: Path) -> None:
    words = ["module._target_=tasks.Template", "model=digits_resnet", "optimizer=adamw", "lr_scheduler=cosine"]
    folder, summary = run(own, *words, "strategy=sfp", "monitor=val_loss", "trainer.limit_train_batches=2", *SHORT)
    assert summary["rows"]["slim"]["macs"] < summary["rows"]["masked"]["macs"]
    assert len(torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]) == 1


def test_experiment_of_ones_own_names_everything(own: Path) -> None:
    folder, summary = run(own, "experiment=own", *SHORT)
    assert list(summary["rows"]) == ["baseline", "masked", "slim"]
    assert summary["sparsity"] == 0.5
    header = (folder / "csv/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert "weights/norm" in header


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [*OWN[:2], "monitor=val/eror"],
            "Error: expected monitor to be what LitRegressor logs in validation, one of val/mean_error, got val/eror",
        ),
        (
            [*OWN, "model=resnet20"],
            "expected a module whose constructor takes network or net or model, got own_module.LitRegressor",
        ),
        (
            [*OWN, "optimizer.lr=0.1"],
            "expected a module whose constructor takes optimizer, got own_module.LitReg",
        ),
        (
            ["model._target_=own_module.LitRegressor"],
            "Error: model._target_: expected a network, got the LightningModule LitRegressor; module._target_ trains",
        ),
        ([*OWN, "module.widht=3"], "Error: module: expected arguments of LitRegressor, width, lr, got widht; did you"),
        (["data._target_=own_network.Net"], "Error: data: expected a LightningDataModule, got Net"),
        (
            ["module._target_=own_network.Net"],
            "Error: module._target_: expected a LightningModule, got Net; a network goes to model._target_",
        ),
    ],
)
def test_mistakes_with_own_classes_end_before_training(words: list[str], message: str, own: Path) -> None:
    result = run_here("train.py", *words, "strategy=sfp", "logger=csv", cwd=own)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (own / "outputs").exists()


def test_without_a_monitor_the_last_epoch_counts_and_the_log_says_what_there_is(own: Path) -> None:
    result = run_here("train.py", *OWN[:2], "strategy=sfp", *SHORT, cwd=own)
    assert result.returncode == 0, result.stderr
    assert "No score: monitor=null; the module logs test/mean_error when it is tested" in result.stdout
    folder = the(own.glob("outputs/2*/*"))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert all(row.score != row.score for row in read_summary(folder / "summary.json").rows)


def test_teacher_of_an_own_network_is_another_of_it(own: Path) -> None:
    words = ["model._target_=own_network.Net", "model.width=8", "teacher.model.width=12", "strategy=kd"]
    folder, summary = run(own, *words, "trainer.limit_train_batches=2", *SHORT)
    assert summary["rows"]["teacher"]["parameters"] > 1.5 * summary["rows"]["trained"]["parameters"]
    weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert weights["network.stem.0.weight"].shape == (8, 1, 3, 3)


def test_network_that_takes_anything_is_given_its_classes(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "factory.py").write_text(FACTORY)
    words = ["model._target_=factory.net", "strategy=sfp", "trainer.limit_train_batches=2"]
    folder, _ = run(own, *words, *SHORT)
    monkeypatch.syspath_prepend(own)
    saved = torch.load(folder / "slim.pt", weights_only=True)
    assert saved["build"]["network"] == {"_target_": "factory.net", "num_classes": 10}
    assert load_slim(instantiate(saved["build"]), folder / "slim.pt")(torch.randn(2, 1, 8, 8)).shape == (2, 10)


MORE = '''
import torch
from lightning.pytorch import LightningModule
from own_network import Net
from tasks import Task
from torch import nn
from torch.nn import functional as F


class Unmeasured(LightningModule):
    """Trains, and is never validated."""

    def __init__(self):
        super().__init__()
        self.net = Net(8)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Saving(Task):
    """Keeps its parts among the hyperparameters, as the Lightning-Hydra template does."""

    def __init__(self, net, optimizer, scheduler):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net

    def forward(self, x):
        return self.net(x)

    def loss(self, batch):
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": self.hparams.scheduler(optimizer)}


class Broken(nn.Module):
    def __init__(self):
        raise RuntimeError("no such thing")
'''


def test_module_without_validation_trains_and_has_no_score(own: Path) -> None:
    (own / "more.py").write_text(MORE)
    words = ["module._target_=more.Unmeasured", "strategy=sfp", "trainer.limit_train_batches=2"]
    _, summary = run(own, *words, *SHORT)
    assert list(summary["rows"]) == ["baseline", "masked", "slim"]
    assert summary["rows"]["slim"]["macs"] < summary["rows"]["masked"]["macs"]


def test_parts_among_the_hyperparameters_and_a_test_without_forward_are_fine(own: Path) -> None:
    (own / "more.py").write_text(MORE)
    words = ["module._target_=more.Saving", "monitor=val_loss", "strategy=sfp", "trainer.limit_train_batches=2"]
    folder, summary = run(own, *words, *SHORT)
    assert summary["rows"]["slim"]["loss"] == pytest.approx(summary["rows"]["masked"]["loss"], rel=1e-4)
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"] == {}


def test_errors_in_ones_own_code_say_where(own: Path) -> None:
    (own / "more.py").write_text(MORE)
    result = run_here("train.py", "model._target_=more.Broken", "strategy=sfp", cwd=own)
    line = MORE.splitlines().index('        raise RuntimeError("no such thing")') + 1
    assert f'no such thing (line {line} of more.py, raise RuntimeError("no such thing"))' in result.stderr
    scheduler = run_here("train.py", "module._target_=more.Saving", "lr_scheduler=one_cycle", cwd=own)
    assert "lr_scheduler: expected a scheduler of torch for more.Saving, which steps it by itself" in scheduler.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.num_labels=3", "Error: model: expected Net to return logits (n, 10), got (2, 3); give it 10 classes"),
        (
            "model.in_chans=3",
            "Error: model: expected Net to take what the data gives, (2, 1, 8, 8), got RuntimeError: ",
        ),
    ],
)
def test_networks_that_do_not_fit_the_data_end_before_a_logger_begins(word: str, message: str, own: Path) -> None:
    result = run_here("train.py", "model._target_=own_network.Net", word, "strategy=sfp", cwd=own)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Weights & Biases" not in result.stdout + result.stderr
    assert not (own / "outputs").exists()
