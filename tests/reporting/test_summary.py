"""The summary of a run."""

import json
import math
from pathlib import Path

import pytest
from report_examples import DENSE, MASKED, SLIM

from lightning_prune.errors import InputError
from lightning_prune.reporting.rows import Row
from lightning_prune.reporting.summary import read_summary, write_summary


def test_summary_comes_back_as_it_was_written(tmp_path):
    extra = {
        "predictions_equal": True,
        "strategy": ["sfp", "kd"],
        "seed": 3,
        "versions": {"torch": "2.13"},
        "none": None,
    }

    write_summary(tmp_path / "summary.json", [DENSE, MASKED, SLIM], extra)
    summary = read_summary(tmp_path / "summary.json")

    assert summary.rows == (DENSE, MASKED, SLIM)
    assert summary.extra == extra
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_nan_is_null_in_the_file(tmp_path):
    row = Row("dense", math.nan, DENSE.profile)
    write_summary(tmp_path / "summary.json", [row], {"best": [math.inf, {"loss": -math.nan}]})

    # A strict parser meets none of NaN, Infinity and -Infinity.
    entries = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)

    assert entries["rows"]["dense"]["accuracy"] is None
    assert entries["best"] == [None, {"loss": None}]
    assert math.isnan(read_summary(tmp_path / "summary.json").rows[0].accuracy)


def test_interrupted_writing_leaves_the_old_summary(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_summary(path, [DENSE], {"seed": 1})

    def half(self: Path, text: str) -> None:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        write_summary(path, [SLIM], {"seed": 2})

    assert read_summary(path).extra == {"seed": 1}


def test_ambiguous_summaries_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected rows of different names, got slim, slim"):
        write_summary(tmp_path / "summary.json", [SLIM, SLIM], {})
    with pytest.raises(InputError, match="any name but rows"):
        write_summary(tmp_path / "summary.json", [SLIM], {"rows": 1})


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"rows": {"slim": {"accuracy": 1, "weight": 2}}}'])
def test_anything_but_a_summary_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)

    with pytest.raises(InputError, match=r"expected a summary of a finished run in .*summary.json, got"):
        read_summary(tmp_path / "summary.json")
