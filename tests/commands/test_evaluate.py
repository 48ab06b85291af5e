"""A second look at a finished run: the same scores, and figures that stay unless it is asked for."""

import json
from pathlib import Path

import pytest
from command_line import run_here

WORDS = ["trainer.max_epochs=2", "trainer.limit_train_batches=4", "logger=csv", "hydra.run.dir=run"]


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        (["strategy=sfp", "finetune=labels"], ["baseline", "masked", "slim", "fine-tuned", "exported"]),
        (["strategy=qat"], ["baseline", "quantized", "exported"]),
        (["strategy=none"], ["trained", "exported"]),
    ],
)
def test_second_look_gives_the_same_scores_and_is_kept_if_asked(
    strategy: list[str], names: list[str], tmp_path: Path
) -> None:
    if "strategy=qat" in strategy:
        pytest.importorskip("onnxruntime")
    result = run_here("train.py", *strategy, *WORDS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    file = tmp_path / "run/summary.json"
    first = file.read_text()
    looked = run_here("scripts/evaluate.py", "run", cwd=tmp_path)
    assert looked.returncode == 0, looked.stderr
    assert file.read_text() == first
    again = run_here("scripts/evaluate.py", "run", "write=true", "latency_batch_size=4", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    before, after = json.loads(first), json.loads(file.read_text())
    assert list(before["rows"]) == list(after["rows"]) == names
    for name in names:
        assert after["rows"][name]["accuracy"] == pytest.approx(before["rows"][name]["accuracy"], abs=1e-6), name
        assert after["rows"][name]["macs"] == before["rows"][name]["macs"]
        assert after["rows"][name]["batch_size"] == 4
        assert f"\n{name} " in again.stdout
    assert after["pruning"] == before["pruning"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "Error: expected the folder of a run, with a config.yaml in it, got nowhere"),
        (["nowhere", "threads=0"], "Error: expected threads to be a whole number of at least 1, got 0"),
        (["nowhere", "write=yes"], "Error: expected write to be true or false, got yes"),
        (
            ["nowhere", "tread=1"],
            "Error: expected options threads=..., latency_batch_size=..., write=..., got tread=1",
        ),
    ],
)
def test_mistakes_end_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    result = run_here("scripts/evaluate.py", *words, cwd=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
