"""`python train.py` as a person uses it, with its files looked at afterwards."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from command_line import run_here, run_process, the
from PIL import Image
from wandb_file import wandb_history

from lightning_prune import load_slim
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.reporting.metrics import read_metrics
from lightning_prune.reporting.summary import read_summary

EPOCHS = ["trainer.max_epochs=3", "trainer.limit_train_batches=4"]
SHORT = [*EPOCHS, "export=null"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short run with every logger's files, and what it printed."""
    cwd = tmp_path_factory.mktemp("run")
    result = run_process("train.py", "strategy=sfp", *EPOCHS, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return the(cwd.glob("outputs/2*/*")), result.stdout


def test_run_leaves_its_files_and_prints_its_table(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {"summary.json", "slim.pt", "model.pt2", "curves.png", "config.yaml", "checkpoints", "csv", "wandb"}
    models = ["baseline", "masked", "slim", "exported"]
    assert all(re.search(rf"^ *{name} .* MiB .* ms", printed, re.MULTILINE) for name in models)
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == models
    assert rows["slim"].profile.macs <= 0.6 * rows["baseline"].profile.macs
    assert rows["slim"].profile.parameters == rows["slim"].profile.nonzeros
    assert rows["slim"].score == rows["masked"].score
    assert json.loads((folder / "summary.json").read_text())["predictions_equal"] is True
    with Image.open(folder / "curves.png") as picture:
        assert picture.width >= 1000


def test_saved_files_open_without_the_run(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    plain = digits_resnet()
    plain.load_state_dict({name.removeprefix("network."): tensor for name, tensor in best.items()})
    small = load_slim(ImageClassifier(digits_resnet(), 10), folder / "slim.pt").eval()
    images = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(small(images), plain.eval()(images))
    program = torch.export.load(folder / "model.pt2").module()
    torch.testing.assert_close(program(images), plain(images))
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert rows["exported"].profile.bytes == (folder / "model.pt2").stat().st_size
    assert rows["exported"].profile.parameters == rows["slim"].profile.parameters
    assert rows["exported"].score == rows["slim"].score


def test_wandb_file_holds_the_curves(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    curves = wandb_history(the(folder.glob("wandb/offline-run-*/run-*.wandb")))
    logged = read_metrics(folder)
    for name in ("sparsity/total", "sparsity/network.layer1.0.conv1", "macs/ratio", "params/ratio", "val/accuracy"):
        assert [value for _, value in curves[name]] == pytest.approx(list(logged[name].values())), name
        assert [step for step, _ in curves[name]] == [3, 7, 11]
    assert curves["sparsity/network.layer1.0.conv1"][-1][1] == 6 / 16


def test_csv_file_holds_what_the_models_reach_and_the_curves_do_not(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    with (folder / "csv/version_0/metrics.csv").open() as file:
        logged = {name: float(cell) for row in csv.DictReader(file) for name, cell in row.items() if cell}
    for row in read_summary(folder / "summary.json").rows[:-1]:  # all but the file, which is written afterwards
        assert logged[f"test/accuracy_{row.name}"] == pytest.approx(row.score), row.name
    assert not [name for name in read_metrics(folder) if name.startswith("test/")]


def test_screens_are_quiet(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    before_table = printed.partition("Model ")[0].splitlines()
    assert [line for line in before_table if line.startswith("Weights & Biases: ")] == [
        f"Weights & Biases: offline; wandb sync {Path(*folder.parts[-3:])}/wandb/offline-*"
    ]
    assert not re.search(r"\[INFO\]|GPU available|wandb:|litlogger|Trainer.fit|v_num", printed)
    assert "[INFO] - Channels stay that are outputs" in (folder / "train.log").read_text()


def test_tensorboard_logger(tmp_path: Path) -> None:
    result = run_here("train.py", "strategy=none", "logger=tensorboard", *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("outputs/*/*/tensorboard/events.out.tfevents.*"))
    assert [row.name for row in read_summary(the(tmp_path.glob("outputs/2*/*/summary.json"))).rows] == ["trained"]


def test_failed_export_leaves_the_results_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "run/model.pt2/full").mkdir(parents=True)  # where the file would go
    result = run_here("train.py", "strategy=none", "logger=csv", "hydra.run.dir=run", *EPOCHS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "export" in line]
    assert line.startswith("Not exported as exported-program: ")
    assert [row.name for row in read_summary(tmp_path / "run/summary.json").rows] == ["trained"]
    assert re.search(r"^ *trained .* MiB .* ms", result.stdout, re.MULTILINE)


def test_two_processes_make_one_run(tmp_path: Path) -> None:
    together = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    result = run_process("train.py", "strategy=[gmp,kd]", "finetune=kd", "logger=csv", *together, *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = the(tmp_path.glob("outputs/2*/*"))
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == ["baseline", "masked", "slim", "fine-tuned"]  # trained as the teacher was, so it is the same
    warned = [line for line in result.stderr.splitlines() if line]
    assert len(set(warned)) == len(warned), "each warning once"
    assert not [line for line in warned if "sync_dist" in line or "rank" in line.lower()]
    assert (
        rows["fine-tuned"].profile.nonzeros == rows["slim"].profile.nonzeros < 0.7 * rows["baseline"].profile.nonzeros
    )
    again = run_here("train.py", "strategy=gmp", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert "expected a new folder for a new run" in again.stderr


@pytest.mark.parametrize("words", [["sparsity=1.2"], ["strategy.sfp.sparsty=0.3"]])
def test_mistakes_end_with_the_same_line_in_a_process_of_their_own(words: list[str], tmp_path: Path) -> None:
    here, result = (run("train.py", "strategy=sfp", *words, cwd=tmp_path) for run in (run_here, run_process))
    assert result.stderr.startswith("Error: ")
    assert (result.returncode, result.stdout, result.stderr) == (here.returncode, here.stdout, here.stderr)


def test_full_error_is_one_variable_away(tmp_path: Path) -> None:
    result = run_here("train.py", "strategy=sfp", "sparsity=1.2", "logger=csv", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert "Traceback" in result.stderr
