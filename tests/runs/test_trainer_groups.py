"""The groups `trainer` and `debug`, and settings of the Trainer that are refused."""

from pathlib import Path

import pytest
import torch
from command_line import run_here

from lightning_prune.reporting.summary import read_summary

QUIET = ["export=null", "hydra.run.dir=run", "trainer.enable_progress_bar=false"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["strategy=sfp", "finetune=kd", "finetune.momentum=sliced"], ["baseline", "masked", "slim", "fine-tuned"]),
        (["strategy=gal"], ["baseline", "masked", "slim", "fine-tuned"]),
        (["strategy=[kd,qat]", "trainer=cpu"], ["baseline", "quantized"]),
    ],
)
def test_fast_run_goes_through_all_stages(words: list[str], names: list[str], tmp_path: Path) -> None:
    result = run_here("train.py", *words, "debug=fast", *QUIET, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert [row.name for row in read_summary(tmp_path / "run/summary.json").rows] == names
    assert not {"checkpoints", "csv", "wandb", "curves.png"} & {path.name for path in (tmp_path / "run").iterdir()}
    assert not (tmp_path / "outputs").exists()


def test_overfitting_trains_on_two_batches(tmp_path: Path) -> None:
    words = ["strategy=gmp", "debug=overfit", "trainer.max_epochs=3", "logger=csv"]
    result = run_here("train.py", *words, *QUIET, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 6


def test_profile_says_where_the_time_went(tmp_path: Path) -> None:
    result = run_here("train.py", "debug=profile", "trainer.limit_train_batches=2", "logger=none", *QUIET, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "run_training_epoch" in (tmp_path / "run/fit-profile.txt").read_text()


REFUSED = [
    (["trainer.enable_checkpointing=false"], "expected trainer.enable_checkpointing=true, since a run ends with"),
    (["trainer.barebones=true"], "expected trainer.barebones=false"),
    (["trainer.max_epoch=3"], "got max_epoch; did you mean max_epochs?"),
    (["trainer.profiler=simpel"], "profiler"),
]
if not torch.cuda.is_available():
    REFUSED.append((["trainer=gpu"], "expected a machine with what trainer.accelerator=gpu asks for"))
if not torch.backends.mps.is_available():
    REFUSED.append((["trainer=mps"], "expected a machine with what trainer.accelerator=mps asks for"))


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_what_cannot_be_is_told_in_one_line_and_leaves_nothing(words: list[str], message: str, tmp_path: Path) -> None:
    result = run_here("train.py", *words, "logger=csv", cwd=tmp_path)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line
    assert not list(tmp_path.glob("outputs/*/*"))
