"""Folders of runs that were made before modules and keys got the names that they have now."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig

from lightning_prune import load_slim, save_slim
from lightning_prune.commands import groups
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.options.resolvers import register_resolvers
from lightning_prune.reporting.run_folder import RunFolder
from lightning_prune.runs.configurations import (
    LAYOUT,
    job_configuration,
    read_configuration,
    refuse_other_layout,
    take_models_of_runs,
)
from lightning_prune.runs.finished_run import finished_run

ROOT = Path(__file__).parents[2]

OLD = """
seed: 0
weights: null
resume: null
run_id: 20261122-201320-c3559d
overrides:
- strategy=qat
strategy:
  qat:
    _target_: lightning_prune.QuantizationAwareTraining
    quantizer:
      _target_: lightning_prune.quantizers.affine.Affine
      weight_bits: 8
scheduler:
  _target_: torch.optim.lr_scheduler.MultiStepLR
  _partial_: true
  gamma: 0.2
  milestones: ${milestones:${trainer.max_epochs},30,60,80}
model:
  _target_: lightning_prune.models.digits.digits_resnet
data:
  _target_: lightning_prune.data.digits.digits
  batch_size: 64
  seed: ${seed}
  views: null
  size: 8
finetune: null
"""
"""Of a config.yaml, as train.py wrote it before the packages were divided into rooms."""

BUILD = {
    "_target_": "lightning_prune.models.classifier.ImageClassifier",
    "network": {"_target_": "lightning_prune.models.digits.digits_resnet", "num_classes": 10, "in_channels": 1},
    "num_classes": 10,
}
"""What slim.pt said of a module at that time."""


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    """The folder of an old run that trained in full precision."""
    folder = RunFolder(tmp_path / "old")
    folder.checkpoints.mkdir(parents=True)
    folder.config.write_text(OLD)
    torch.save({"state_dict": ImageClassifier(digits_resnet(), 10).state_dict()}, folder.best_checkpoint)
    return folder


def composed(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["run_folder=run", "run_id=run", *overrides])
    cfg.overrides = list(overrides)
    return cfg


@pytest.fixture
def resuming(old: RunFolder) -> Iterator[DictConfig]:
    """The configuration that Hydra composes of `resume=FOLDER`."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[f"resume={old.path}"], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = str(old.path)
    HydraConfig.instance().set_config(cfg)
    yield cfg
    HydraConfig.instance().cfg = None


def test_old_run_is_not_resumed(old: RunFolder, resuming: DictConfig) -> None:
    with pytest.raises(InputError) as error:
        job_configuration(resuming)
    assert str(error.value) == (
        f"expected a run of this version to go on with, got resume={old.path}, made by an older one; begin a new run, "
        f"with weights={old.path} for its weights"
    )
    assert old.config.read_text() == OLD


def test_run_of_a_later_version_is_not_resumed_either() -> None:
    refuse_other_layout(DictConfig({"layout": LAYOUT}), "run")
    with pytest.raises(InputError, match="got resume=run, made by a newer one; begin a new run"):
        refuse_other_layout(DictConfig({"layout": LAYOUT + 1}), "run")


@pytest.mark.parametrize("option", ["weights", "teacher.checkpoint"])
def test_weights_of_old_runs_are_taken(option: str, old: RunFolder) -> None:
    cfg = composed("strategy=kd", "model=lenet_5", f"{option}={old.path}")
    cfg.overrides = []
    take_models_of_runs(cfg)
    model = cfg.model if option == "weights" else cfg.teacher.model
    network = instantiate(model, num_classes=10, in_channels=1)
    assert network.state_dict().keys() == digits_resnet().state_dict().keys()


@pytest.mark.parametrize(
    ("option", "remedy"), [("weights", "model=NAME"), ("teacher.checkpoint", "model@teacher.model=NAME")]
)
def test_architecture_that_is_no_more_is_told(option: str, remedy: str, old: RunFolder) -> None:
    old.config.write_text(OLD.replace("models.digits.digits_resnet", "models.nowhere.lenet"))
    for checkpoint in (old.path, old.best_checkpoint):
        with pytest.raises(InputError) as error:
            take_models_of_runs(composed("strategy=kd", f"{option}={checkpoint}"))
        assert str(error.value) == (
            f"expected a run of this version, got {old.path}, made by an older version or with other code: "
            f"lightning_prune.models.nowhere.lenet is not there; add {remedy}"
        )
    take_models_of_runs(composed("strategy=kd", f"{option}={old.path}", remedy.replace("NAME", "lenet_5")))


def test_old_network_is_exported_unless_its_quantizer_is_no_more(old: RunFolder) -> None:
    finished = finished_run(old.path)
    images = torch.randn(3, 1, 8, 8)
    plain = digits_resnet().eval()
    state = torch.load(old.best_checkpoint, weights_only=True)["state_dict"]
    plain.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state.items()})
    assert torch.equal(finished.module(images), plain(images))
    save_slim(finished.module, old.quantized, build=BUILD)
    saved = torch.load(old.quantized, weights_only=True)
    torch.save(saved | {"quantization": {}}, old.quantized)
    with pytest.raises(InputError, match=r"lightning_prune.quantizers.affine.Affine is not there; run it again"):
        finished_run(old.path)


def test_old_slim_files_say_how_to_build_them(tmp_path: Path) -> None:
    save_slim(ImageClassifier(digits_resnet(), 10), tmp_path / "slim.pt", build=BUILD)
    saved = torch.load(tmp_path / "slim.pt", weights_only=True)
    module = load_slim(instantiate(saved["build"]), tmp_path / "slim.pt")
    assert all(torch.equal(tensor, saved["state_dict"][name]) for name, tensor in module.state_dict().items())


def test_groups_of_an_old_run_are_shown(old: RunFolder) -> None:
    cfg = groups.configuration([str(old.path)])
    assert cfg.model == read_configuration(old).model
    assert cfg.module._target_ == "lightning_prune.models.classifier.ImageClassifier"
    old.config.write_text(OLD.replace("models.digits.digits_resnet", "models.nowhere.lenet"))
    with pytest.raises(InputError, match=r"models.nowhere.lenet is not there; run it again"):
        groups.configuration([str(old.path)])
