"""Runs of `train.py` that are killed or stopped, and go on as if they had not been."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from command_line import run_here, start_process, the
from omegaconf import OmegaConf

from lightning_prune.callbacks.best_pruned_checkpoint import BestPrunedCheckpoint
from lightning_prune.export.weight_files import load_weights
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.reporting.metrics import read_metrics
from lightning_prune.reporting.summary import read_summary


def test_killed_run_resumes_in_its_folder_to_the_same_bits(tmp_path: Path) -> None:
    options = ["strategy=sfp", "trainer.max_epochs=8", "seed=3", "export=null", "baseline=none"]
    assert run_here("train.py", *options, cwd=tmp_path).returncode == 0
    whole = the(tmp_path.glob("outputs/2*/*")).rename(tmp_path / "whole")

    process = start_process("train.py", *options, cwd=tmp_path)
    for _ in range(3000):
        time.sleep(0.02)
        if list(tmp_path.glob("outputs/*/*/csv/version_0/metrics.csv")) and list(
            tmp_path.glob("outputs/*/*/*/last.ckpt")
        ):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = the(tmp_path.glob("outputs/2*/*"))
    assert not (folder / "summary.json").exists()

    resumed = run_here("train.py", f"resume={folder.relative_to(tmp_path)}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [path.name for path in tmp_path.glob("outputs/*/*")] == [folder.name]
    states = [torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (whole, folder)]
    assert all(torch.equal(tensor, states[1]["state_dict"][name]) for name, tensor in states[0]["state_dict"].items())
    summaries = [read_summary(f / "summary.json") for f in (whole, folder)]
    assert [row.score for row in summaries[0].rows] == [row.score for row in summaries[1].rows]
    curves = [read_metrics(f) for f in (whole, folder)]
    assert curves[0]["val/accuracy"] == curves[1]["val/accuracy"]
    ids = {path.name.rpartition("run-")[2] for path in folder.glob("wandb/offline-run-*/run-*.wandb")}
    assert ids == {f"{OmegaConf.load(folder / 'config.yaml').run_id}.wandb"}

    again = run_here("train.py", f"resume={folder}", "seed=4", cwd=tmp_path)
    assert again.returncode == 1
    assert "expected nothing beside resume" in again.stderr

    (folder / "summary.json").unlink()  # else the run has ended, and prints its table
    shutil.copy(whole / "slim.pt", folder / "checkpoints/last.ckpt")
    other = run_here("train.py", f"resume={folder}", cwd=tmp_path)
    assert other.returncode == 1
    assert "it is of another architecture" in other.stderr
    assert "Traceback" not in other.stderr


def states(folder: Path, cwd: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights that every stage of a run ended with."""
    files = {name: folder / f"{name}.pt" for name in ("slim", "finetuned")}
    files |= {"run": folder / "checkpoints/last.ckpt", "finetune": folder / "finetune/checkpoints/last.ckpt"}
    files |= {"teacher": the(cwd.glob("outputs/teachers/[!.]*")) / "checkpoints/last.ckpt"}
    return {name: torch.load(file, weights_only=True)["state_dict"] for name, file in files.items()}


def test_run_killed_in_each_stage_ends_at_the_same_bits(tmp_path: Path) -> None:
    options = ["strategy=[sfp,kd]", "finetune=kd", "logger=csv", "trainer.max_epochs=4", "teacher.epochs=6"]
    options += ["finetune.teacher=dense", "finetune.momentum=sliced", "export=null", "baseline=none"]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert run_here("train.py", *options, cwd=tmp_path / "whole").returncode == 0
    cwd, arguments = tmp_path / "killed", options
    for stage in ("outputs/teachers/*.part", "outputs/2*/*/finetune"):
        process = start_process("train.py", *arguments, cwd=cwd)
        while process.poll() is None and not list(cwd.glob(f"{stage}/checkpoints/last.ckpt")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        folder = the(cwd.glob("outputs/2*/*"))
        arguments = [f"resume={folder.relative_to(cwd)}"]
    assert not (folder / "summary.json").exists()
    last = run_here("train.py", *arguments, cwd=cwd)
    assert last.returncode == 0, last.stderr
    assert "Teacher: taken from outputs/teachers/" in last.stdout
    unbroken = the((tmp_path / "whole").glob("outputs/2*/*"))
    expected, found = states(unbroken, tmp_path / "whole"), states(folder, cwd)
    for name, state in expected.items():
        assert state.keys() == found[name].keys()
        assert all(torch.equal(tensor, found[name][key]) for key, tensor in state.items()), name
    # The optimizer of the slim model begins with what that of the best checkpoint knew of it.
    momentum = [torch.load(f / "momentum.pt", weights_only=True) for f in (unbroken, folder)]
    for name, known in momentum[0].items():
        assert torch.equal(known["momentum_buffer"], momentum[1][name]["momentum_buffer"])
        assert known["momentum_buffer"].shape == expected["slim"][name].shape
        assert known["momentum_buffer"].any()
    assert len(momentum[0]) == sum(1 for _ in ImageClassifier(digits_resnet(), 10).parameters())
    load_weights(digits_resnet(), folder / "dense.pt")
    rows = [read_summary(f / "summary.json").rows for f in (unbroken, folder)]
    assert [row.name for row in rows[0]] == ["teacher", "baseline", "masked", "slim", "fine-tuned"]
    assert [(row.name, row.score) for row in rows[0]] == [(row.name, row.score) for row in rows[1]]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_moved_run_says_how_to_go_on_and_does(stop: signal.Signals, tmp_path: Path) -> None:
    options = ["strategy=sfp", "logger=csv", "trainer.max_epochs=200", "strategy.sfp.hard_from=0.01"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    process = start_process("train.py", *options, cwd=tmp_path, stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, before)
    for _ in range(3000):
        time.sleep(0.02)
        if list(tmp_path.glob("outputs/*/*/checkpoints/best.ckpt")):
            break
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    folder = the(tmp_path.glob("outputs/2*/*"))
    assert f"resume={folder.relative_to(tmp_path)}" in errors
    moved = folder.rename(tmp_path / "moved")
    best = torch.load(moved / "checkpoints/best.ckpt", weights_only=True)
    state = BestPrunedCheckpoint(moved / "checkpoints", "best", monitor="val/accuracy", mode="max")
    key = next(key for key in best["callbacks"] if key.startswith("BestPrunedCheckpoint"))
    state.load_state_dict(best["callbacks"][key])
    assert state.best_model_path == str(moved / "checkpoints" / "best.ckpt")
    assert list(state.best_k_models) == [state.best_model_path]
