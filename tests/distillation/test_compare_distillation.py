"""`python scripts/compare_distillation.py` trains what it does not know, and prints what it knows."""

import json
from pathlib import Path

from command_line import run_here

KNOWN = {
    "strategy=none trainer.max_epochs=1 seed=0": 80.0,
    "strategy=none trainer.max_epochs=1 seed=1": 84.0,
    "strategy=[kd] distillation=hint trainer.max_epochs=1 seed=0": 81.0,
}


def test_the_table_has_means_ranges_and_differences(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps({"run": run, "accuracy": value}) + "\n" for run, value in KNOWN.items()))
    words = ("--losses", "hint", "--seeds", "0", "1", "--results", str(results), "trainer.max_epochs=1")
    printed = run_here("scripts/compare_distillation.py", *words, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    *known, new = map(json.loads, results.read_text().splitlines())
    assert {line["run"]: line["accuracy"] for line in known} == KNOWN
    assert new["run"] == "strategy=[kd] distillation=hint trainer.max_epochs=1 seed=1"
    assert 10 < new["accuracy"] <= 100
    plain, hint = printed.stdout.splitlines()[-2:]
    assert plain.split() == ["no", "teacher", "82.00", "(", "80.00", "to", "84.00)"]
    mean, low, high = (81 + new["accuracy"]) / 2, min(81, new["accuracy"]), max(81, new["accuracy"])
    assert hint.split("hint")[1].replace("(", "").replace(")", "").split() == [
        f"{mean:.2f}", f"{low:.2f}", "to", f"{high:.2f}", f"{mean - 82:+.2f}"
    ]  # fmt: skip
