"""Sweeps of `train.py`: their jobs, their table and their picture."""

import re
from dataclasses import replace
from pathlib import Path

from command_line import run_here, the
from omegaconf import OmegaConf
from PIL import Image

from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Metric, Row
from lightning_prune.reporting.summary import read_summary, write_summary
from lightning_prune.reporting.sweeps import sweep_report

SHORT = ["trainer.max_epochs=3", "trainer.limit_train_batches=4", "export=null"]


def test_sweep_ends_in_one_table_and_one_picture(tmp_path: Path) -> None:
    result = run_here("train.py", "-m", "strategy=[sfp,kd]", "sparsity=0.3,0.5", "seed=1,2", *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    sweep = the(tmp_path.glob("multirun/*/*"))
    jobs = sorted(path.name for path in sweep.iterdir() if path.is_dir())
    assert jobs == ["0", "1", "2", "3"]
    assert len({path.name for path in sweep.glob("*/wandb/offline-run-*/run-*.wandb")}) == 4
    macs = [read_summary(sweep / job / "summary.json").rows[-1].profile.macs for job in jobs]
    assert macs[0] == macs[1] > macs[2] == macs[3]
    assert len((sweep / "sweep.csv").read_text().splitlines()) == 5
    with Image.open(sweep / "sweep.png") as picture:
        assert picture.width >= 800
    assert {OmegaConf.load(sweep / job / "config.yaml").sweep for job in jobs} == {
        sweep.relative_to(tmp_path).as_posix()
    }
    assert re.search(r"^ *3 +0.5 +2 ", result.stdout, re.MULTILINE)
    # One teacher for each seed, since that determines it, and none for each sparsity.
    teachers = sorted(f"outputs/teachers/{path.name}" for path in tmp_path.glob("outputs/teachers/[!.]*"))
    assert sorted(re.findall(r"Teacher: 3 epochs, kept in (\S+)", result.stdout)) == teachers
    assert sorted(re.findall(r"Teacher: taken from (\S+)", result.stdout)) == teachers
    assert len(teachers) == 2
    rows = [read_summary(sweep / job / "summary.json").rows for job in jobs]
    assert [row.name for row in rows[0]] == ["baseline", "masked", "slim"]  # which the teacher is
    assert [r[0].score for r in rows[:2]] == [r[0].score for r in rows[2:]]


def test_a_mistake_in_one_job_of_a_sweep_does_not_cost_the_others(tmp_path: Path) -> None:
    result = run_here("train.py", "-m", "strategy=none,sfp", "sparsity=1.5", "logger=csv", *SHORT, cwd=tmp_path)
    assert result.returncode == 1
    assert "Job 1: strategy.sfp: expected sparsity in [0, 1), got 1.5" in result.stderr
    assert "Traceback" not in result.stderr
    sweep = the(tmp_path.glob("multirun/*/*"))
    lines = (sweep / "sweep.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith(",")
    assert lines[2].endswith("failed or unfinished")


def test_sweep_tells_of_the_last_model_and_not_of_its_file(tmp_path: Path) -> None:
    costs = Profile(
        parameters=10,
        nonzeros=10,
        macs=10,
        bytes=40,
        latency_ms=1.0,
        latency_low_ms=0.9,
        latency_high_ms=1.1,
        threads=1,
        batch_size=1,
    )
    file = Row("exported", 0.4, replace(costs, bytes=999, latency_ms=7.0))
    (tmp_path / "0").mkdir()
    rows = [Row("baseline", 0.9, costs), Row("scratch-E", 0.8, costs), file]
    write_summary(tmp_path / "0/summary.json", rows, Metric("accuracy", "max"), {})
    sweep_report(tmp_path)
    header, numbers = (line.split(",") for line in (tmp_path / "sweep.csv").read_text().splitlines())
    entries = dict(zip(header, numbers, strict=True))
    assert (entries["accuracy_slim"], entries["latency_ms"]) == ("0.8", "1.0")
