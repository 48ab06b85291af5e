"""Runs that are trained longer than they were planned, and runs that have ended."""

import csv
import shutil
import signal
import time
from math import cos, pi
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_here, start_process
from omegaconf import OmegaConf
from quiet_trainer import quiet_trainer

from lightning_prune import GradualPruning, SoftFilterPruning
from lightning_prune.data.digits import digits
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.reporting.metrics import read_metrics
from lightning_prune.reporting.summary import read_summary
from lightning_prune.training.timeline import PlannedLength

SHORT = ["trainer.limit_train_batches=6", "export=null", "baseline=none", "logger=csv", "hydra.run.dir=run"]
SHORT += ["trainer.enable_progress_bar=false", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs, the last of them hard, whose slim model has trained on."""
    cwd = tmp_path_factory.mktemp("ended")
    words = ["strategy=sfp", "strategy.sfp.hard_from=0.75", "finetune=labels", "finetune.epochs=1"]
    result = run_here("train.py", *words, "trainer.max_epochs=4", *SHORT, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd / "run"


@pytest.fixture
def run(ended: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ended, tmp_path / "run"))


def last(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "checkpoints/last.ckpt", weights_only=True))


def learning_rates(folder: Path) -> dict[int, float]:
    """Return what was logged of the learning rate, by optimizer step."""
    files = [file.read_text().splitlines() for file in sorted(folder.glob("csv/version_*/metrics.csv"))]
    rows = [row for lines in files for row in csv.DictReader(lines) if row.get("lr-SGD")]
    return {int(row["step"]): float(row["lr-SGD"]) for row in rows}


def zeros(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor == 0 for name, tensor in checkpoint["state_dict"].items() if name.endswith(".weight")}


def test_ended_run_prints_its_table_again_and_does_nothing(run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".log"}
    result = run_here("train.py", "resume=run", cwd=run.parent)
    assert result.returncode == 0, result.stderr
    rows = read_summary(run / "summary.json").rows
    for row in rows:
        assert f"{100 * row.score:.2f} %" in result.stdout or row.name == "baseline"
        assert f"\n{row.name} " in result.stdout
    assert "This run has ended, and nothing was done. lightning-prune evaluate run measures anew" in result.stdout
    # The configuration notes where its folder has moved to.
    kept = [path for path in before if ".hydra" not in path.parts and path.name != "config.yaml"]
    assert all(path.read_bytes() == before[path] for path in kept)


def test_longer_run_keeps_its_plan_and_makes_the_rest_anew(run: Path) -> None:
    short, tuned = last(run), torch.load(run / "finetuned.pt", weights_only=True)["state_dict"]
    result = run_here("train.py", "resume=run", "trainer.max_epochs=6", cwd=run.parent)
    assert result.returncode == 0, result.stderr
    long = last(run)
    assert long["global_step"] == 36
    assert short["lr_schedulers"][0]["milestones"] == long["lr_schedulers"][0]["milestones"]
    assert all(torch.equal(zero, zeros(long)[name]) for name, zero in zeros(short).items())
    assert any(not torch.equal(tensor, long["state_dict"][name]) for name, tensor in short["state_dict"].items())
    again = torch.load(run / "finetuned.pt", weights_only=True)["state_dict"]
    assert any(not torch.equal(tensor, again[name]) for name, tensor in tuned.items())
    assert torch.load(run / "finetune/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6
    summary = read_summary(run / "summary.json")
    assert summary.extra["predictions_equal"] is True
    assert list(read_metrics(run)["val/accuracy"]) == [1, 2, 3, 4, 5, 6]
    cfg = OmegaConf.load(run / "config.yaml")
    assert (cfg.trainer.max_epochs, cfg.lengthened.max_epochs, cfg.finetune.epochs) == (6, 4, 1)
    assert cfg.overrides[-1] == "trainer.max_epochs=6"


def test_longer_run_that_is_killed_ends_at_the_same_bits(run: Path) -> None:
    other = Path(shutil.copytree(run, run.parent / "whole"))
    longer = ["trainer.max_epochs=10", "lr_scheduler=cosine", "optimizer.lr=0.05"]
    assert run_here("train.py", "resume=whole", *longer, cwd=run.parent).returncode == 0
    process = start_process("train.py", "resume=run", *longer, cwd=run.parent)
    for _ in range(3000):
        time.sleep(0.02)
        if (run / "csv/version_1/metrics.csv").exists() and last(run)["global_step"] > 24:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 24 < last(run)["global_step"] < 60
    assert not (run / "summary.json").exists()
    resumed = run_here("train.py", "resume=run", cwd=run.parent)
    assert resumed.returncode == 0, resumed.stderr
    for name in ("checkpoints/last.ckpt", "finetune/checkpoints/last.ckpt"):
        one, two = (torch.load(folder / name, weights_only=True)["state_dict"] for folder in (other, run))
        assert all(torch.equal(tensor, two[key]) for key, tensor in one.items()), name
    # The new schedule is one for the six epochs that were left.
    rates = learning_rates(run)
    expected = [0.05 * (1 + cos(pi * epoch / 6)) / 2 for epoch in range(6)]
    assert [rates[6 * epoch] for epoch in range(4, 10)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.max_epochs=3"], "expected trainer.max_epochs of more than the 4 that the run has behind it, got 3"),
        (["trainer.max_epochs=4"], "expected trainer.max_epochs of more than the 4"),
        (["trainer.max_steps=24"], "expected trainer.max_steps of more than the 24"),
        (["trainer.max_epochs=many"], "expected trainer.max_epochs of more than the 4 that the run has behind it"),
        (["trainer.max_epochs=6", "seed=1"], "expected nothing beside resume=run, got trainer.max_epochs=6 seed=1"),
        (["optimizer.lr=0.1"], "expected nothing beside resume=run, got optimizer.lr=0.1; a run is resumed as it was"),
        (["trainer.max_epochs=6", "lr_scheduler=one_cycle"], "expected a learning rate schedule that can begin"),
    ],
)
def test_what_makes_no_run_longer_is_told_in_one_line(words: list[str], message: str, run: Path) -> None:
    before = (run / "summary.json").read_bytes(), (run / "config.yaml").read_bytes()
    result = run_here("train.py", "resume=run", *words, cwd=run.parent)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"Error: {message}" in line
    assert ((run / "summary.json").read_bytes(), (run / "config.yaml").read_bytes()) == before


def test_schedule_that_has_come_to_its_end_asks_for_another(run: Path) -> None:
    cfg = OmegaConf.load(run / "config.yaml")
    cfg.lr_scheduler = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "_partial_": True, "T_max": 4}
    OmegaConf.save(cfg, run / "config.yaml")
    result = run_here("train.py", "resume=run", "trainer.max_epochs=6", cwd=run.parent)
    assert "CosineAnnealingLR, ends with its length; add lr_scheduler=NAME, and optimizer.lr=..." in result.stderr


@pytest.mark.parametrize("epochs", [4, 8])
def test_fractions_are_those_of_the_plan(epochs: int) -> None:
    module, data = ImageClassifier(digits_resnet(), 10), digits()
    gradual, soft = GradualPruning(0.5, begin=0.25, end=0.5), SoftFilterPruning(0.4, hard_from=0.75)
    planned = [PlannedLength(4)] if epochs == 8 else []
    for pruner, expected in ((gradual, 2.0), (soft, 3)):
        trainer = quiet_trainer(pruner, *planned, max_epochs=epochs, limit_train_batches=3, limit_val_batches=1)
        trainer.fit(module, datamodule=data)
        assert pruner.final_epoch == expected
