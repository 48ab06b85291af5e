"""The summary of a run."""

import json
import math
from pathlib import Path

import pytest
from report_examples import ACCURACY, BASELINE, MASKED, SLIM

from lightning_prune.errors import InputError
from lightning_prune.reporting.rows import Metric, Row
from lightning_prune.reporting.summary import read_summary, write_summary


def test_summary_comes_back_as_it_was_written(tmp_path):
    extra = {
        "predictions_equal": True,
        "strategy": ["sfp", "kd"],
        "seed": 3,
        "versions": {"torch": "2.13"},
        "none": None,
    }

    write_summary(tmp_path / "summary.json", [BASELINE, MASKED, SLIM], ACCURACY, extra)
    summary = read_summary(tmp_path / "summary.json")

    assert summary.rows == (BASELINE, MASKED, SLIM)
    assert summary.metric == ACCURACY
    assert summary.extra == extra
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_nan_is_null_in_the_file(tmp_path):
    row = Row("dense", math.nan, BASELINE.profile)
    write_summary(tmp_path / "summary.json", [row], ACCURACY, {"best": [math.inf, {"loss": -math.nan}]})

    # A strict parser meets none of NaN, Infinity and -Infinity.
    entries = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)

    assert entries["rows"]["dense"]["accuracy"] is None
    assert entries["best"] == [None, {"loss": None}]
    assert math.isnan(read_summary(tmp_path / "summary.json").rows[0].score)


def test_scores_stand_under_the_name_of_their_metric(tmp_path):
    path, metric = tmp_path / "summary.json", Metric("map", "max", "val")
    rows = (Row("slim", 0.25, SLIM.profile), Row("masked", math.nan, MASKED.profile))

    write_summary(path, rows, metric, {})

    entries = json.loads(path.read_text())
    assert entries["metric"] == {"name": "map", "mode": "max", "split": "val"}
    assert entries["rows"]["slim"]["map"] == 0.25
    assert entries["rows"]["slim"]["macs"] == SLIM.profile.macs
    assert entries["rows"]["masked"]["map"] is None
    assert entries["rows"]["slim"]["interval"] is None
    assert read_summary(path).metric == metric
    assert read_summary(path).rows[0] == rows[0]


def test_shares_are_written_with_their_interval(tmp_path):
    write_summary(tmp_path / "summary.json", [BASELINE], ACCURACY, {})

    entries = json.loads((tmp_path / "summary.json").read_text())["rows"]["baseline"]
    assert entries["examples"] == 10000
    assert entries["interval"] == pytest.approx([0.9166, 0.9271], abs=1e-4)


def test_summaries_of_older_versions_are_read(tmp_path):
    """Without a metric, numbers of examples and quartiles."""
    costs = {"parameters": 3, "nonzeros": 2, "macs": 5, "bytes": 12, "latency_ms": 1.5, "threads": 2, "batch_size": 32}
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"rows": {"dense": {"accuracy": 0.5, **costs}}, "seed": 1}))

    summary = read_summary(path)

    (row,) = summary.rows
    assert (row.name, row.score, row.profile.latency_ms, row.interval) == ("dense", 0.5, 1.5, None)
    assert math.isnan(row.profile.latency_low_ms)
    assert not row.profile.noisy
    assert summary.metric == ACCURACY
    assert summary.extra == {"seed": 1}


def test_interrupted_writing_leaves_the_old_summary(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_summary(path, [BASELINE], ACCURACY, {"seed": 1})

    def half(self: Path, text: str) -> None:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        write_summary(path, [SLIM], ACCURACY, {"seed": 2})

    assert read_summary(path).extra == {"seed": 1}


def test_ambiguous_summaries_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected rows of different names, got slim, slim"):
        write_summary(tmp_path / "summary.json", [SLIM, SLIM], ACCURACY, {})
    with pytest.raises(InputError, match="any name but rows and metric, got rows; rename it"):
        write_summary(tmp_path / "summary.json", [SLIM], ACCURACY, {"rows": 1})
    with pytest.raises(InputError, match=r"a metric of any name but .*, got macs"):
        write_summary(tmp_path / "summary.json", [SLIM], Metric("macs", "min"), {})


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"rows": {"slim": {"accuracy": 1, "weight": 2}}}'])
def test_anything_but_a_summary_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)

    with pytest.raises(InputError, match=r"expected a summary of a finished run in .*summary.json, got"):
        read_summary(tmp_path / "summary.json")
