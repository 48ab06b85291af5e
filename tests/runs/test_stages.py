"""The stages of a run: a teacher, the run itself, and what its slim model trains afterwards."""

import math
import re
from pathlib import Path

import pytest
import torch
from command_line import ROOT, run_here, the
from configured import options
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from wandb_file import wandb_history

from lightning_prune import load_slim
from lightning_prune.errors import InputError
from lightning_prune.export.network_files import EXPORT_FORMATS
from lightning_prune.export.weight_files import load_weights
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.options.overrides import refuse_unread
from lightning_prune.options.resolvers import register_resolvers
from lightning_prune.options.stage_needs import needs_dense, needs_teacher
from lightning_prune.reporting.metrics import read_metrics
from lightning_prune.reporting.summary import read_summary
from lightning_prune.runs.configurations import take_models_of_runs
from lightning_prune.runs.pipeline import run_stages
from lightning_prune.runs.stages import finetuning_stage, set_epochs, teacher_stage

register_resolvers()
EPOCHS = ["trainer.max_epochs=3", "trainer.limit_train_batches=4"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["logger=csv", "run_folder=run", "run_id=run", *overrides])
    cfg.overrides = list(overrides)
    return cfg


def test_gal_trains_a_teacher_searches_and_finetunes(tmp_path: Path) -> None:
    result = run_here("train.py", "strategy=gal", *EPOCHS, "export=null", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = the(tmp_path.glob("outputs/2*/*"))
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == ["baseline", "masked", "slim", "fine-tuned"]  # which is the teacher that it began as
    assert rows["slim"].score == rows["masked"].score
    assert rows["fine-tuned"].profile.macs == rows["slim"].profile.macs < 0.8 * rows["baseline"].profile.macs
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


def test_control_trains_the_slim_architecture_for_the_same_compute(tmp_path: Path) -> None:
    options = ["strategy=sfp", "finetune=scratch_b", "finetune.longest=null", "baseline=none", *EPOCHS, "export=onnx"]
    result = run_here("train.py", *options, "logger=csv", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = the(tmp_path.glob("outputs/2*/*"))
    rows = {row.name: row for row in read_summary(folder / "summary.json").rows}
    assert list(rows) == ["baseline", "masked", "slim", "scratch-B", "exported"]
    epochs = int(3 * rows["baseline"].profile.macs / rows["slim"].profile.macs)
    assert epochs > 6
    assert list(read_metrics(folder / "finetune")["val/accuracy"]) == list(range(1, epochs + 1))
    (rates,) = torch.load(folder / "finetune/checkpoints/last.ckpt", weights_only=True)["lr_schedulers"]
    assert rates["base_lrs"] == [0.1]
    assert sorted(rates["milestones"]) == [math.ceil(share * epochs) for share in (0.3, 0.6, 0.8)]
    scratch, slim = (torch.load(folder / name, weights_only=True)["state_dict"] for name in ("finetuned.pt", "slim.pt"))
    assert all(tensor.shape == slim[name].shape for name, tensor in scratch.items())
    assert rows["scratch-B"].profile.macs == rows["slim"].profile.macs
    load_slim(ImageClassifier(digits_resnet(), 10), folder / "finetune/checkpoints/best.ckpt")
    assert rows["exported"].score == pytest.approx(rows["scratch-B"].score, abs=0.003)


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


@pytest.mark.parametrize("strategy", options("strategy"))
@pytest.mark.parametrize("finetune", options("finetune"))
def test_every_stage_behind_every_strategy_has_a_whole_configuration(strategy: str, finetune: str) -> None:
    cfg = composed(f"strategy={strategy}", f"finetune={finetune}")
    for stage in [cfg, teacher_stage(cfg), *([finetuning_stage(cfg)] if cfg.finetune else [])]:
        assert OmegaConf.to_container(stage, resolve=True, throw_on_missing=True)


def test_stages_have_lengths_and_schedules_of_their_own() -> None:
    cfg = composed("strategy=gal", "trainer.max_epochs=40", "teacher.epochs=10", "trainer.max_steps=7")
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
        InputError, match=r"of \(10.*got \(7.*expected a teacher of 1 channels and 10 classes"
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
        (["strategy=[sfp,kd]", "sparsity=1.2"], "strategy.sfp: expected sparsity in [0, 1), got 1.2"),
        (["strategy=kd", "strategy.kd.weight=-1"], "strategy.kd: expected weight"),
    ],
)
def test_mistakes_end_before_a_teacher_is_trained(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run_stages(composed(*overrides, f"teacher.folder={tmp_path}", f"run_folder={tmp_path}/run"))
    assert list(tmp_path.iterdir()) == []


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
        (["export=foo"], f"expected export to be auto, null or one of {', '.join(EXPORT_FORMATS)}, got foo"),
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
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        run_stages(composed(*strategy, *overrides, f"run_folder={tmp_path}/run"))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
