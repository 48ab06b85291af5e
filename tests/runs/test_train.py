"""`python train.py` as a person uses it: in a process of its own, with its files looked at afterwards."""

import json
import math
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from wandb.proto import wandb_internal_pb2

from lightning_prune import load_slim
from lightning_prune.callbacks.best_pruned_checkpoint import BestPrunedCheckpoint
from lightning_prune.errors import InputError
from lightning_prune.export.weight_files import load_weights
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.reporting.metrics import read_metrics
from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Row
from lightning_prune.reporting.summary import read_summary, write_summary
from lightning_prune.reporting.sweeps import sweep_report
from lightning_prune.runs.configurations import take_models_of_runs
from lightning_prune.runs.overrides import refuse_unread
from lightning_prune.runs.pipeline import run_stages
from lightning_prune.runs.resolvers import register_resolvers
from lightning_prune.runs.stage_needs import needs_dense, needs_teacher
from lightning_prune.runs.stages import finetuning_stage, set_epochs, teacher_stage

ROOT = Path(__file__).parents[2]
register_resolvers()
EPOCHS = ["trainer.max_epochs=3", "trainer.limit_train_batches=4"]
SHORT = [*EPOCHS, "export=null"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *arguments]


def environment(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "HYDRA"))}
    return clean | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "WANDB_MODE": "offline"} | variables


def run(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=300
    )


def the(paths: Iterator[Path]) -> Path:
    (path,) = paths
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short run with every logger's files, and what it printed."""
    cwd = tmp_path_factory.mktemp("run")
    result = run("strategy=sfp", *EPOCHS, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return the(cwd.glob("outputs/*/*")), result.stdout


def test_run_leaves_its_files_and_prints_its_table(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {"summary.json", "slim.pt", "model.pt2", "curves.png", "config.yaml", "checkpoints", "csv", "wandb"}
    models = ["dense", "masked", "slim", "exported"]
    assert all(re.search(rf"^ *{name} .* MiB .* ms", printed, re.MULTILINE) for name in models)
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == models
    assert rows["slim"].profile.macs <= 0.6 * rows["dense"].profile.macs
    assert rows["slim"].profile.parameters == rows["slim"].profile.nonzeros
    assert rows["slim"].accuracy == rows["masked"].accuracy
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
    assert rows["exported"].accuracy == rows["slim"].accuracy


def wandb_history(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the curves out of an offline file: a log in LevelDB's format, in blocks of 32 KiB, of protobuf records."""
    data, position, record = file.read_bytes(), 7, b""
    curves = defaultdict(list)
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record = (record if kind in (3, 4) else b"") + data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            message = wandb_internal_pb2.Record.FromString(record)
            items = {item.key or "/".join(item.nested_key): item.value_json for item in message.history.item}
            for key, value in items.items():
                curves[key].append((int(items.get("trainer/global_step", -1)), float(value)))
    return curves


def test_wandb_file_holds_the_curves(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    curves = wandb_history(the(folder.glob("wandb/offline-run-*/run-*.wandb")))
    logged = read_metrics(folder)
    for name in ("sparsity/total", "sparsity/network.layer1.0.conv1", "macs/ratio", "params/ratio", "val/accuracy"):
        assert [value for _, value in curves[name]] == pytest.approx(list(logged[name].values())), name
        assert [step for step, _ in curves[name]] == [3, 7, 11]
    assert curves["sparsity/network.layer1.0.conv1"][-1][1] == 6 / 16


def test_killed_run_resumes_in_its_folder_to_the_same_bits(tmp_path: Path) -> None:
    options = ["strategy=sfp", "trainer.max_epochs=8", "seed=3", "export=null"]
    assert run(*options, cwd=tmp_path).returncode == 0
    whole = the(tmp_path.glob("outputs/*/*")).rename(tmp_path / "whole")

    process = subprocess.Popen(command(*options), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    for _ in range(3000):
        time.sleep(0.02)
        if list(tmp_path.glob("outputs/*/*/csv/version_0/metrics.csv")) and list(
            tmp_path.glob("outputs/*/*/*/last.ckpt")
        ):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = the(tmp_path.glob("outputs/*/*"))
    assert not (folder / "summary.json").exists()

    resumed = run(f"resume={folder.relative_to(tmp_path)}", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert [path.name for path in tmp_path.glob("outputs/*/*")] == [folder.name]
    states = [torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (whole, folder)]
    assert all(torch.equal(tensor, states[1]["state_dict"][name]) for name, tensor in states[0]["state_dict"].items())
    summaries = [read_summary(f / "summary.json") for f in (whole, folder)]
    assert [row.accuracy for row in summaries[0].rows] == [row.accuracy for row in summaries[1].rows]
    curves = [read_metrics(f) for f in (whole, folder)]
    assert curves[0]["val/accuracy"] == curves[1]["val/accuracy"]
    ids = {path.name.rpartition("run-")[2] for path in folder.glob("wandb/offline-run-*/run-*.wandb")}
    assert ids == {f"{OmegaConf.load(folder / 'config.yaml').run_id}.wandb"}

    again = run(f"resume={folder}", "seed=4", cwd=tmp_path)
    assert again.returncode == 1
    assert "expected nothing beside resume" in again.stderr

    shutil.copy(whole / "slim.pt", folder / "checkpoints/last.ckpt")
    other = run(f"resume={folder}", cwd=tmp_path)
    assert other.returncode == 1
    assert "it is of another architecture" in other.stderr
    assert "Traceback" not in other.stderr


def test_sweep_ends_in_one_table_and_one_picture(tmp_path: Path) -> None:
    result = run("-m", "strategy=[sfp,kd]", "sparsity=0.3,0.5", "seed=1,2", *SHORT, cwd=tmp_path)
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
    assert sorted(re.findall(r"Teacher: 3 epochs first, kept in (\S+)", result.stdout)) == teachers
    assert sorted(re.findall(r"Teacher: taken from (\S+)", result.stdout)) == teachers
    assert len(teachers) == 2
    rows = [read_summary(sweep / job / "summary.json").rows for job in jobs]
    assert [row.name for row in rows[0]] == ["teacher", "dense", "masked", "slim"]
    assert [r[0].accuracy for r in rows[:2]] == [r[0].accuracy for r in rows[2:]]


def states(folder: Path, cwd: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights that every stage of a run ended with."""
    files = {name: folder / f"{name}.pt" for name in ("slim", "finetuned")}
    files |= {"run": folder / "checkpoints/last.ckpt", "finetune": folder / "finetune/checkpoints/last.ckpt"}
    files |= {"teacher": the(cwd.glob("outputs/teachers/[!.]*")) / "checkpoints/last.ckpt"}
    return {name: torch.load(file, weights_only=True)["state_dict"] for name, file in files.items()}


def test_run_killed_in_each_stage_ends_at_the_same_bits(tmp_path: Path) -> None:
    options = ["strategy=[sfp,kd]", "finetune=kd", "logger=csv", "trainer.max_epochs=4", "teacher.epochs=6"]
    options += ["finetune.teacher=dense", "finetune.momentum=sliced", "export=null"]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = subprocess.Popen(command(*options), cwd=tmp_path / "whole", env=environment(), stdout=subprocess.DEVNULL)
    cwd, arguments = tmp_path / "killed", options
    for stage in ("outputs/teachers/*.part", "outputs/2*/*/finetune"):
        process = subprocess.Popen(command(*arguments), cwd=cwd, env=environment(), stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(cwd.glob(f"{stage}/checkpoints/last.ckpt")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        folder = the(cwd.glob("outputs/2*/*"))
        arguments = [f"resume={folder.relative_to(cwd)}"]
    assert not (folder / "summary.json").exists()
    last = run(*arguments, cwd=cwd)
    assert last.returncode == 0, last.stderr
    assert "Teacher: taken from outputs/teachers/" in last.stdout
    assert whole.wait() == 0
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
    assert [row.name for row in rows[0]] == ["teacher", "dense", "masked", "slim", "fine-tuned"]
    assert [(row.name, row.accuracy) for row in rows[0]] == [(row.name, row.accuracy) for row in rows[1]]


def test_gal_trains_a_teacher_searches_and_finetunes(tmp_path: Path) -> None:
    result = run("strategy=gal", *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = the(tmp_path.glob("outputs/2*/*"))
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == ["teacher", "masked", "slim", "fine-tuned"]
    assert rows["slim"].accuracy == rows["masked"].accuracy
    assert rows["fine-tuned"].profile.macs == rows["slim"].profile.macs < 0.8 * rows["teacher"].profile.macs
    small = load_slim(ImageClassifier(digits_resnet(), 10), folder / "finetuned.pt")
    tuned = torch.load(folder / "finetune/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, tuned[name]) for name, tensor in small.state_dict().items())
    teacher = the(tmp_path.glob("outputs/teachers/[!.]*"))
    assert {path.name for path in teacher.iterdir()} == {"config.yaml", "checkpoints", "csv"}
    load_weights(digits_resnet(), teacher)
    # Every stage has its own curves, and the two that are logged to W&B are two runs of it.
    lengths = [len(read_metrics(stage)["val/accuracy"]) for stage in (teacher, folder, folder / "finetune")]
    assert lengths == [3, 3, 2]
    run_id = OmegaConf.load(folder / "config.yaml").run_id
    for stage, name in ((folder, run_id), (folder / "finetune", f"{run_id}-finetune")):
        curves = wandb_history(the(stage.glob(f"wandb/offline-run-*/run-{name}.wandb")))
        assert [v for _, v in curves["val/accuracy"]] == pytest.approx([*read_metrics(stage)["val/accuracy"].values()])


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["logger=csv", "run_folder=run", "run_id=run", *overrides])
    cfg.overrides = list(overrides)
    return cfg


def test_teachers_are_told_apart_by_what_determines_them() -> None:
    same = [
        ["strategy=kd"],
        ["strategy=gal", "sparsity=0.7", "finetune=kd", "logger=tensorboard", "checkpoint_every_n_steps=3"],
        ["strategy=kd", "optimizer=adamw", "lr_scheduler=cosine", "trainer.max_epochs=9", "teacher.epochs=20"],
    ]
    others = [
        ["seed=1"],
        ["teacher.epochs=21"],
        ["teacher.optimizer.lr=0.2"],
        ["lr_scheduler@teacher.lr_scheduler=cosine"],
        ["model@teacher.model=resnet20"],
        ["data.batch_size=32"],
        ["trainer.limit_train_batches=4"],
    ]
    assert len({teacher_stage(composed(*overrides)).run_folder for overrides in same}) == 1
    assert len({teacher_stage(composed(*overrides)).run_folder for overrides in [*same, *others]}) == 1 + len(others)


def test_stages_have_lengths_and_schedules_of_their_own() -> None:
    cfg = composed("strategy=gal", "trainer.max_epochs=40", "teacher.epochs=10", "+trainer.max_steps=7")
    own = [cfg, teacher_stage(cfg), finetuning_stage(cfg)]
    assert [stage.trainer.max_epochs for stage in own] == [40, 10, 20]
    assert [stage.trainer.max_steps for stage in own] == [7, -1, -1]
    assert [list(stage.lr_scheduler.milestones) for stage in own] == [[12, 24, 36], [3, 6, 8], [6, 12, 16]]
    assert [stage.optimizer.lr for stage in own] == pytest.approx([0.01, 0.1, 0.01])
    assert [stage.optimizer.weight_decay for stage in own] == [2e-4, 5e-4, 2e-4]
    assert [list(stage.strategy) for stage in own] == [["gal"], [], []]


def test_command_line_wins_over_what_gal_chooses() -> None:
    assert composed("strategy=gal", "finetune=none").finetune is None
    assert list(composed("strategy=gal", "finetune=kd").finetune.strategy) == ["kd"]
    cfg = composed("strategy=gal", "optimizer=adamw", "lr_scheduler=cosine")
    assert "momentum" not in cfg.optimizer
    assert "milestones" not in cfg.lr_scheduler


def test_teacher_of_another_run_has_its_architecture_and_must_fit_the_data(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    OmegaConf.save({"model": {"_target_": "lightning_prune.models.resnet.resnet20"}}, tmp_path / "config.yaml")
    torch.save(ImageClassifier(digits_resnet(num_classes=7), 7).state_dict(), tmp_path / "checkpoints/best.ckpt")
    for checkpoint in (tmp_path, tmp_path / "checkpoints/best.ckpt"):
        cfg = composed("strategy=kd", f"teacher.checkpoint={checkpoint}")
        take_models_of_runs(cfg)
        assert cfg.teacher.model["_target_"].endswith("resnet20")
    cfg = composed("strategy=kd", f"teacher.checkpoint={tmp_path}", "model@teacher.model=digits_resnet")
    cfg.run_folder = str(tmp_path / "run")
    take_models_of_runs(cfg)
    with pytest.raises(
        CompactHydraException, match=r"of \(10.*got \(7.*expected a teacher of 1 channels and 10 classes"
    ) as raised:
        run_stages(cfg)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=sfp", "teacher.epochs=3"], "expected a strategy that has a teacher, got teacher.epochs=3 with st"),
        (["model@teacher.model=resnet56"], "expected a strategy that has a teacher, got model@teacher.model=resnet56"),
        (
            ["strategy=kd", "teacher.checkpoint=x", "teacher.optimizer.lr=1"],
            "expected a teacher to train, got teacher.optimizer.lr=1 with teacher.checkpoint=x",
        ),
    ],
)
def test_options_of_a_teacher_that_nobody_reads_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        refuse_unread(OmegaConf.to_container(composed(*overrides)), overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=kd", "teacher.epochs=0"], "expected teacher.epochs to be a whole number of at least 1, got 0"),
        (
            ["strategy=sfp", "finetune=labels", "finetune.epochs=0.5"],
            "expected finetune.epochs to be a whole number of at least 1, got",
        ),
        (["strategy=kd", "finetune=labels"], "expected a strategy that prunes before fine-tuning, got strategy=[kd]"),
        (["strategy=[sfp,kd]", "sparsity=1.2"], "Error in strategy.sfp: expected sparsity in [0, 1), got 1.2"),
        (["strategy=kd", "strategy.kd.weight=-1"], "Error in strategy.kd: expected weight"),
    ],
)
def test_mistakes_end_before_a_teacher_is_trained(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(CompactHydraException, match=re.escape(message)):
        run_stages(composed(*overrides, f"teacher.folder={tmp_path}", f"run_folder={tmp_path}/run"))
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_one_job_of_a_sweep_does_not_cost_the_others(tmp_path: Path) -> None:
    result = run("-m", "strategy=none,sfp", "sparsity=1.5", "logger=csv", *SHORT, cwd=tmp_path)
    assert result.returncode == 1
    assert "Job 1: Error in strategy.sfp: expected sparsity in [0, 1), got 1.5" in result.stderr
    assert "Traceback" not in result.stderr
    sweep = the(tmp_path.glob("multirun/*/*"))
    lines = (sweep / "sweep.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[1].endswith(",")
    assert lines[2].endswith("failed or unfinished")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_moved_run_says_how_to_go_on_and_does(stop: signal.Signals, tmp_path: Path) -> None:
    options = command("strategy=sfp", "logger=csv", "trainer.max_epochs=200", "strategy.sfp.hard_from=0.01")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    process = subprocess.Popen(options, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    for _ in range(3000):
        time.sleep(0.02)
        if list(tmp_path.glob("outputs/*/*/checkpoints/best.ckpt")):
            break
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    folder = the(tmp_path.glob("outputs/*/*"))
    assert f"resume={folder.relative_to(tmp_path)}" in errors
    moved = folder.rename(tmp_path / "moved")
    best = torch.load(moved / "checkpoints/best.ckpt", weights_only=True)
    state = BestPrunedCheckpoint(moved / "checkpoints", "best", monitor="val/accuracy", mode="max")
    key = next(key for key in best["callbacks"] if key.startswith("BestPrunedCheckpoint"))
    state.load_state_dict(best["callbacks"][key])
    assert state.best_model_path == str(moved / "checkpoints" / "best.ckpt")
    assert list(state.best_k_models) == [state.best_model_path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strategy=sfp", "sparsity=1.2"], "Error in strategy.sfp: expected sparsity in [0, 1), got 1.2"),
        (
            ["strategy=sfp", "strategy.sfp.sparsity={nothing*:0.5}"],
            "expected sparsity[nothing*] to match a prunable layer",
        ),
        (["strategy=gmp", "strategy.gmp.begin=0.6"], "expected begin not after end, got begin=240 and end=200"),
        (["strategy=gmp", "criterion=apoz"], "expected granularity Channel() for APoZ"),
        (
            ["strategy=sfp", "granularity=element"],
            "Error: expected a strategy that takes a granularity, got strategy=[sfp]; leave granularity out, or use",
        ),
        (["strategy=gmp", "granularity=[element,input_channel]"], "expected one granularity, got granularity=[element"),
        (["strategy=nothing"], "Could not find 'strategy/nothing'"),
        (["model=nothing"], "Could not find 'model/nothing'"),
        (["data=cifar10", "data.path=nowhere"], "data.path: expected a folder with parquet files, got"),
        (["trainer.max_epochs=0"], "expected at least one epoch of training, got none"),
        (["optimizer.lr=-1"], "Error: ValueError: Invalid learning rate: -1"),
        (["seed=abc"], "Error: ValueError"),
        (["latency_batch_size=0"], "expected latency_batch_size to be a whole number of at least 1, got 0"),
        (["data=image_folder"], "data.path"),
        (["resume=nowhere"], "expected the folder of a run, with a config.yaml in it, got nowhere"),
    ],
)
def test_mistakes_end_with_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "logger=csv", cwd=tmp_path)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("outputs/*/*/checkpoints/*"))


def test_full_error_is_one_variable_away(tmp_path: Path) -> None:
    result = run("strategy=sfp", "sparsity=1.2", "logger=csv", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert "Traceback" in result.stderr


def test_help_lists_the_groups(tmp_path: Path) -> None:
    result = run("--help", cwd=tmp_path)
    assert result.returncode == 0
    assert re.search(r"strategy: .*fpgm.*sfp", result.stdout)
    assert re.search(r"finetune: gal, kd, labels, none", result.stdout)
    assert "sparsity: 0.4" in result.stdout


def test_two_processes_make_one_run(tmp_path: Path) -> None:
    together = ["trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    result = run("strategy=[gmp,kd]", "finetune=kd", "logger=csv", *together, *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = the(tmp_path.glob("outputs/2*/*"))
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == ["teacher", "masked", "slim", "fine-tuned"]
    assert rows["fine-tuned"].profile.nonzeros == rows["slim"].profile.nonzeros < 0.7 * rows["teacher"].profile.nonzeros
    again = run("strategy=gmp", f"hydra.run.dir={folder}", cwd=tmp_path)
    assert "expected a new folder for a new run" in again.stderr


def test_tensorboard_logger(tmp_path: Path) -> None:
    result = run("strategy=none", "logger=tensorboard", *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("outputs/*/*/tensorboard/events.out.tfevents.*"))
    assert [row.name for row in read_summary(the(tmp_path.glob("outputs/*/*/summary.json"))).rows] == ["dense"]


def finished_folder(*options: str, cwd: Path) -> Path:
    result = run(*options, "logger=csv", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return the(cwd.glob("outputs/2*/*"))


def test_control_trains_the_slim_architecture_for_the_same_compute(tmp_path: Path) -> None:
    options = ["strategy=sfp", "finetune=scratch_b", "finetune.longest=null", *EPOCHS, "export=onnx"]
    folder = finished_folder(*options, cwd=tmp_path)
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == ["dense", "masked", "slim", "scratch-B", "exported"]
    epochs = int(3 * rows["dense"].profile.macs / rows["slim"].profile.macs)
    assert epochs > 6
    assert list(read_metrics(folder / "finetune")["val/accuracy"]) == list(range(1, epochs + 1))
    (rates,) = torch.load(folder / "finetune/checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
    assert rates["base_lrs"] == [0.1]
    assert sorted(rates["milestones"]) == [math.ceil(share * epochs) for share in (0.3, 0.6, 0.8)]
    scratch, slim = (torch.load(folder / name, weights_only=True)["state_dict"] for name in ("finetuned.pt", "slim.pt"))
    assert all(tensor.shape == slim[name].shape for name, tensor in scratch.items())
    assert rows["scratch-B"].profile.macs == rows["slim"].profile.macs
    load_slim(ImageClassifier(digits_resnet(), 10), folder / "finetune/checkpoints/best.ckpt")
    assert rows["exported"].accuracy == pytest.approx(rows["scratch-B"].accuracy, abs=0.003)


def test_failed_export_leaves_the_results_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "run/model.pt2/full").mkdir(parents=True)  # where the file would go
    result = run("strategy=none", "logger=csv", "hydra.run.dir=run", *EPOCHS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if "export" in line]
    assert line.startswith("Not exported as exported-program: ")
    assert [row.name for row in read_summary(tmp_path / "run/summary.json").rows] == ["dense"]
    assert re.search(r"^ *dense .* MiB .* ms", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("overrides", "dense", "other"),
    [
        (["strategy=sfp", "finetune=kd"], True, False),
        (["strategy=[sfp,kd]", "finetune=kd"], False, True),
        (["strategy=[sfp,kd]", "finetune=kd", "finetune.teacher=dense"], True, True),
        (["strategy=sfp", "finetune=kd", "teacher.epochs=3"], False, True),
        (["strategy=sfp", "finetune=kd", "finetune.teacher=teacher"], False, True),
        (["strategy=gmp", "finetune=kd"], False, True),
        (["strategy=sfp", "finetune=labels"], False, False),
        (["strategy=kd"], False, True),
    ],
)
def test_dense_network_teaches_unless_another_teacher_is_given(overrides: list[str], dense: bool, other: bool) -> None:
    config = OmegaConf.to_container(composed(*overrides))
    assert (needs_dense(config), needs_teacher(config)) == (dense, other)
    refuse_unread(config, overrides)


def test_control_is_trained_by_the_recipe_of_the_main_run() -> None:
    cfg = composed(
        "strategy=sfp", "finetune=scratch_e", "lr_scheduler=cosine", "optimizer.lr=0.07", "trainer.max_epochs=9"
    )
    own = finetuning_stage(cfg)
    assert own.optimizer == cfg.optimizer
    assert own.lr_scheduler == cfg.lr_scheduler
    set_epochs(own, 13)
    assert own.lr_scheduler.T_max == 13
    assert cfg.lr_scheduler.T_max == 9
    assert own.seed != cfg.seed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["finetune=labels", "finetune.momentum=foo"],
            "expected finetune.momentum to be one of fresh, sliced, got foo",
        ),
        (
            ["finetune=kd", "finetune.teacher=foo"],
            "expected finetune.teacher to be one of null, dense, teacher, got foo",
        ),
        (["finetune=scratch_b", "finetune.longest=0.5"], "expected finetune.longest to be null or at least 1, got 0.5"),
        (
            ["finetune=scratch_e", "finetune.from_scratch=b"],
            "expected finetune.from_scratch to be one of epochs, compu",
        ),
        (
            ["finetune=labels", "finetune.momentum=sliced", "+finetune.optimizer._target_=torch.optim.Adam"],
            "expected finetune.momentum=fresh where the optimizer changes from torch.optim.SGD to torch.optim.Adam",
        ),
        (
            ["strategy=none", "finetune=scratch_b"],
            "expected a strategy that prunes before fine-tuning, got strategy=[no",
        ),
        (
            ["strategy=gmp", "finetune=kd", "finetune.teacher=dense"],
            "expected a strategy that keeps its dense network, such as sfp, for finetune.teacher=dense, got str",
        ),
        (
            ["strategy=[sfp,gmp]", "finetune=kd"],
            "expected one pruner where the dense network teaches, got strategy=[sf",
        ),
        (["export=foo"], "expected export to be null or one of onnx, onnx-int8, exported-program, lpz, got foo"),
        (["export=onnx-int8"], "expected a last stage that trains for integers with export=onnx-int8, got one"),
        (
            ["strategy=[sfp,qat]", "finetune=labels", "export=onnx-int8"],
            "expected a last stage that trains for integers",
        ),
        (["strategy=qat", "quantizer=lsq", "export=onnx-int8"], "expected a last stage that trains for integers"),
    ],
)
def test_options_of_the_second_stage_and_the_file_are_refused_before_training(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    strategy = [] if overrides[0].startswith("strategy") else ["strategy=sfp"]
    with pytest.raises(CompactHydraException, match=re.escape(message)) as raised:
        run_stages(composed(*strategy, *overrides, f"run_folder={tmp_path}/run"))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_sweep_tells_of_the_last_model_and_not_of_its_file(tmp_path: Path) -> None:
    costs = Profile(parameters=10, nonzeros=10, macs=10, bytes=40, latency_ms=1.0, threads=1, batch_size=1)
    file = Row("exported", 0.4, replace(costs, bytes=999, latency_ms=7.0))
    (tmp_path / "0").mkdir()
    write_summary(tmp_path / "0/summary.json", [Row("dense", 0.9, costs), Row("scratch-E", 0.8, costs), file], {})
    sweep_report(tmp_path)
    header, numbers = (line.split(",") for line in (tmp_path / "sweep.csv").read_text().splitlines())
    entries = dict(zip(header, numbers, strict=True))
    assert (entries["accuracy_slim"], entries["latency_ms"]) == ("0.8", "1.0")
