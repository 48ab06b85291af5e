"""Callbacks that are chosen beside the strategies: by name, several, one's own."""

import json
from pathlib import Path

import pytest
import torch
from command_line import ROOT, run_here
from configured import options
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from lightning_prune import load_slim
from lightning_prune.data.digits import digits
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.options.resolvers import register_resolvers
from lightning_prune.reporting.summary import read_summary
from lightning_prune.runs.trainers import build_callbacks

register_resolvers()
QUIET = ["logger=none", "export=null", "baseline=none", "trainer.enable_progress_bar=false", "hydra.run.dir=run"]
STOPPING = ["callbacks=early_stopping", "callbacks.early_stopping.min_delta=2", "callbacks.early_stopping.patience=1"]
"""Accuracy never gets better by two, so that the second validation ends the training."""


def slim_accuracy(folder: Path) -> float:
    """Return the test accuracy of the file, by hand."""
    module, data = load_slim(ImageClassifier(digits_resnet(), 10), folder / "slim.pt").eval(), digits()
    data.setup("test")
    batches = [(data.finish(batch.pixels, None), batch.labels) for batch in data.test_dataloader()]
    hits = [module(images).argmax(1) == labels for images, labels in batches]
    return torch.cat(hits).float().mean().item()


@pytest.mark.parametrize(
    "choice",
    [
        ["strategy=sfp", "trainer.max_epochs=8", *STOPPING],
        ["strategy=gmp", "trainer.max_epochs=8", *STOPPING],
        ["strategy=sfp", "trainer.max_epochs=3", "callbacks=ema", "callbacks.ema.decay=0.8"],
        ["strategy=gmp", "trainer.max_epochs=3", "callbacks=ema", "trainer.limit_val_batches=0"],
        ["strategy=sfp", "trainer.max_epochs=3", "callbacks=swa"],
        ["strategy=gmp", "trainer.max_epochs=3", "strategy.gmp.end=1.0", "callbacks=swa"],
        ["strategy=sfp", "trainer.max_epochs=2", "callbacks=[lr_finder,ema]"],
    ],
    ids=lambda choice: " ".join(choice[:3]),
)
def test_what_stops_or_averages_leaves_a_true_table(choice: list[str], tmp_path: Path) -> None:
    result = run_here("train.py", *choice, "trainer.limit_train_batches=8", *QUIET, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = read_summary(tmp_path / "run/summary.json")
    rows = {row.name: row for row in summary.rows}
    assert summary.extra["predictions_equal"] is True
    assert rows["masked"].score == rows["slim"].score == pytest.approx(slim_accuracy(tmp_path / "run"))
    stopped = "callbacks=early_stopping" in choice
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert (last["global_step"] == 16) is (stopped or "trainer.max_epochs=2" in choice)
    if "strategy=sfp" in choice:
        assert rows["slim"].profile.parameters < 0.5 * rows["masked"].profile.parameters
    elif not stopped:
        share = rows["slim"].profile.nonzeros / rows["slim"].profile.parameters
        assert share == pytest.approx(0.6, abs=0.02)
    else:
        assert "before the last choice" in result.stderr


def test_stopped_training_is_not_taken_up_again(tmp_path: Path) -> None:
    choice = ["strategy=sfp", *STOPPING, "finetune=labels", "finetune.epochs=1", "trainer.limit_train_batches=4"]
    assert run_here("train.py", *choice, *QUIET, cwd=tmp_path).returncode == 0
    (tmp_path / "run/summary.json").unlink()  # as if it had been killed in the second training
    before = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    result = run_here("train.py", "resume=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    after = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert after["global_step"] == before["global_step"] == 8


def test_learning_rate_that_is_found_is_trained_with(tmp_path: Path) -> None:
    choice = ["strategy=gmp", "callbacks=lr_finder", "trainer.max_epochs=2", "lr_scheduler=cosine"]
    result = run_here("train.py", *choice, *QUIET, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("Learning rate: ")]
    rate = float(line.split()[2].strip(","))
    last = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert last["lr_schedulers"][0]["base_lrs"] == [pytest.approx(rate, rel=0.01)]
    assert last["global_step"] == 40
    assert not list(tmp_path.rglob(".lr_find*"))


@pytest.mark.parametrize("name", options("callbacks"))
def test_each_is_one_callback_that_is_called_by_its_name(name: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=["run_folder=run", "run_id=run", f"callbacks={name}", "logger=none"])
    assert list(cfg.callbacks) == ([] if name == "none" else [name])
    assert all(isinstance(callback, Callback) for callback in build_callbacks(cfg))
    assert OmegaConf.to_container(cfg.logger) == {}


OWN = """
from lightning.pytorch import Callback

class Mine(Callback):
    def __init__(self, x):
        self.x = x

    def on_train_start(self, trainer, pl_module):
        print("Mine", self.x, [type(one).__name__ for one in trainer.callbacks].count("EarlyStopping"))
"""


def test_own_callbacks_typed_and_in_files_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "own_callbacks_here.py").write_text(OWN)
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    file = "# @package callbacks.from_file\n_target_: own_callbacks_here.Mine\nx: 4\n"
    (tmp_path / "conf/callbacks/from_file.yaml").write_text(file)
    fast = ["trainer.fast_dev_run=true", "export=null"]
    typed = ["callbacks.mine._target_=own_callbacks_here.Mine", "callbacks.mine.x=3"]
    stop = "trainer.callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}]"
    result = run_here("train.py", "callbacks=[from_file,early_stopping]", *typed, stop, *fast, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {"Mine 4 2", "Mine 3 2"} <= set(result.stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["callbacks.x=3"], "Error: expected callbacks.NAME with a _target_ each, got callbacks.x=3; in conf/"),
        (["logger.x=3"], "Error: expected logger.NAME with a _target_ each, got logger.x=3; in conf/logger/"),
        (
            ["callbacks.mine._target_=torch.nn.ReLU"],
            "Error: callbacks.mine: expected a lightning.pytorch.Callback",
        ),
        (["callbacks=early_stopping", "monitor=null"], "callbacks.early_stopping.monitor: expected a text, got None"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/acc"],
            "one of val/accuracy, val/loss, got val/acc; did you mean val/accuracy?",
        ),
        (["trainer.callbacks=[3]"], "Error: trainer.callbacks: expected callbacks, got 3"),
    ],
)
def test_what_is_no_callback_is_told_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=1", "export=null"]
    logger = [] if words[0].startswith("logger") else ["logger=none"]
    result = run_here("train.py", *words, *short, *logger, cwd=tmp_path)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if "Error" in line]
    assert message in line
    assert not list(tmp_path.glob("outputs/*/*"))


def test_tags_stand_in_the_summary_and_a_configuration_is_printed(tmp_path: Path) -> None:
    words = ["tags=[a,b]", "print_config=true", "debug=fast", "export=null", "hydra.run.dir=run"]
    result = run_here("train.py", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["tags"] == ["a", "b"]
    assert "- a" in result.stdout
    assert "  fast_dev_run: true" in result.stdout
    assert result.stdout.index("fast_dev_run: true") < result.stdout.index("Model")
