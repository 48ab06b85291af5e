"""What a run is compared with: trained by the same recipe without its strategy, once, or what it began with."""

import json
from pathlib import Path

import pytest
import torch
from command_line import run_here, the

SHORT = ["trainer.max_epochs=2", "trainer.limit_train_batches=3", "logger=csv", "export=null"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]


def test_baseline_is_the_plain_run_and_is_trained_once(tmp_path: Path) -> None:
    plain = run_here("train.py", *SHORT, "hydra.run.dir=plain", cwd=tmp_path)
    pruned = run_here("train.py", "strategy=sfp", *SHORT, "hydra.run.dir=pruned", cwd=tmp_path)
    other = run_here("train.py", "strategy=gmp", "sparsity=0.8", *SHORT, "hydra.run.dir=other", cwd=tmp_path)
    assert [result.returncode for result in (plain, pruned, other)] == [0, 0, 0], pruned.stderr
    kept = the(tmp_path.glob("outputs/teachers/[!.]*"))
    assert f"Baseline: 2 epochs, kept in {kept.relative_to(tmp_path)}" in pruned.stdout
    assert f"Baseline: taken from {kept.relative_to(tmp_path)}" in other.stdout
    assert all(torch.equal(tensor, weights(kept)[name]) for name, tensor in weights(tmp_path / "plain").items())
    rows = {name: json.loads((tmp_path / name / "summary.json").read_text())["rows"] for name in ("plain", "other")}
    assert list(rows["other"])[:2] == ["baseline", "masked"]
    assert list(rows["plain"]) == ["trained"]
    assert rows["other"]["baseline"]["accuracy"] == rows["plain"]["trained"]["accuracy"]


def test_teacher_by_the_same_recipe_is_the_baseline(tmp_path: Path) -> None:
    result = run_here("train.py", "strategy=[sfp,kd]", *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    the(tmp_path.glob("outputs/teachers/[!.]*"))
    summary = json.loads(the(tmp_path.glob("outputs/2*/*/summary.json")).read_text())
    assert list(summary["rows"]) == ["baseline", "masked", "slim"]


def test_baseline_is_what_the_run_begins_with_where_that_is_trained(tmp_path: Path) -> None:
    assert run_here("train.py", *SHORT, "hydra.run.dir=plain", cwd=tmp_path).returncode == 0
    words = ["strategy=gmp", "weights=plain", "optimizer.lr=1e-6"]
    result = run_here("train.py", *words, *SHORT, "hydra.run.dir=pruned", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "outputs").exists()
    rows = {name: json.loads((tmp_path / name / "summary.json").read_text())["rows"] for name in ("plain", "pruned")}
    assert rows["pruned"]["baseline"]["accuracy"] == rows["plain"]["trained"]["accuracy"]


@pytest.mark.parametrize("strategy", ["sfp", "qat", "kd"])
def test_no_baseline_is_a_dash(strategy: str, tmp_path: Path) -> None:
    result = run_here("train.py", f"strategy={strategy}", "baseline=none", *SHORT, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(the(tmp_path.glob("outputs/2*/*/summary.json")).read_text())
    assert summary["rows"]["baseline"]["accuracy"] is None
    assert summary["rows"]["baseline"]["nonzeros"] is None
    assert summary["rows"]["baseline"]["macs"] > 0
    assert "Baseline:" not in result.stdout.split("Model")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["baseline=foo"], "expected baseline to be train, weights, none or null, got foo"),
        (
            ["baseline=weights"],
            "expected weights=RUN or a strategy with a teacher beside baseline=weights, got",
        ),
    ],
)
def test_other_baselines_are_refused(words: list[str], message: str, tmp_path: Path) -> None:
    result = run_here("train.py", "strategy=sfp", *words, *SHORT, cwd=tmp_path)
    assert result.returncode == 1
    assert f"Error: {message}" in result.stderr
    assert list(tmp_path.iterdir()) == []
