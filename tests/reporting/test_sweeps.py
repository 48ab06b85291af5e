"""Tables and pictures of sweeps."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from report_examples import (
    ACCURACY,
    BASELINE,
    BLUE,
    MASKED,
    SLIM,
    VERMILLION,
    costs,
    count_pixels,
    pixels,
    printed,
    squeezed,
)

from lightning_prune.errors import InputError
from lightning_prune.reporting import sweeps
from lightning_prune.reporting.rows import Metric, Row
from lightning_prune.reporting.summary import write_summary
from lightning_prune.reporting.sweep_plot import Point
from lightning_prune.reporting.sweeps import sweep_report


def write_job(
    sweep: Path, number: int, overrides: list[str], accuracy: float, macs: int, strategy: str = "sfp"
) -> None:
    (sweep / str(number)).mkdir(parents=True)
    slim = Row("slim", accuracy, costs(68118, 68118, macs, 300000, 1.5))
    write_summary(
        sweep / str(number) / "summary.json", [BASELINE, slim], ACCURACY, {"overrides": overrides, "strategy": strategy}
    )


def test_sweep_lists_every_job_with_what_differs(tmp_path):
    for number in (0, 2, 10):
        overrides = ["model=resnet20", f"strategy.sfp.sparsity=0.{number}", "+seed=1"]
        write_job(tmp_path, number, overrides, accuracy=0.9 - number / 100, macs=40551424 // (number + 1))
    (tmp_path / "9" / ".hydra").mkdir(parents=True)
    (tmp_path / "9" / ".hydra" / "overrides.yaml").write_text(
        "- model=resnet20\n- strategy.sfp.sparsity=0.9\n- +seed=1\n"
    )
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "summary.json").write_text("{")
    (tmp_path / ".submitit").mkdir()
    (tmp_path / "multirun.yaml").touch()

    lines = printed(sweep_report(tmp_path), 80)

    assert lines[0].split() == ["Job", "sparsity", "Slim", "Change", "MACs", "Params", "Non-zero", "Latency"]
    assert [squeezed(line) for line in lines[2:7]] == [
        "0 0.0 90.00 % -2.20 100 % 25 % 25.0 % 1.50 ms",
        "2 0.2 88.00 % -4.20 33 % 25 % 25.0 % 1.50 ms",
        "9 0.9 - - - - - -",
        "10 0.10 80.00 % -12.20 9 % 25 % 25.0 % 1.50 ms",
        "11 - - - - - -",
    ]
    assert "The baseline of all: 92.20 %." in " ".join(lines)
    assert "Job 9 has no result: failed or unfinished." in lines
    assert "Job 11 has no result: unreadable summary.json." in lines

    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["0", "2", "9", "10", "11"]
    assert [row["strategy.sfp.sparsity"] for row in rows] == ["0.0", "0.2", "0.9", "0.10", ""]
    assert [row["accuracy_slim"] for row in rows] == ["0.9", "0.88", "", "0.8", ""]
    assert [row["accuracy_baseline"] for row in rows[:2]] == ["0.922", "0.922"]
    assert float(rows[1]["accuracy_change"]) == pytest.approx(-0.042)
    assert float(rows[1]["macs_ratio"]) == pytest.approx(1 / 3, abs=1e-6)
    assert [row["problem"] for row in rows] == ["", "", "failed or unfinished", "", "unreadable summary.json"]


def test_sweep_counts_the_fine_tuned_model_and_leaves_the_teacher_out(tmp_path):
    teacher = Row("teacher", 0.99, costs(10**9, 10**9, 10**9, 10**9, 9.0))
    tuned = Row("fine-tuned", 0.925, SLIM.profile)
    (tmp_path / "0").mkdir()
    write_summary(
        tmp_path / "0" / "summary.json", [teacher, BASELINE, MASKED, SLIM, tuned], ACCURACY, {"strategy": ["sfp", "kd"]}
    )

    line = printed(sweep_report(tmp_path), 100)[2]

    assert squeezed(line) == "0 92.50 % +0.30 48 % 41 % 41.0 % 1.71 ms"


def test_table_of_many_settings_shortens_settings_and_no_number(tmp_path):
    for number in range(3):
        overrides = [f"{key}=value-{number}" for key in ("strategy", "criterion", "schedule", "optimizer.lr", "seed")]
        write_job(tmp_path, number, overrides, accuracy=0.9, macs=20000000)

    lines = printed(sweep_report(tmp_path), 80)

    assert max(map(len, lines)) <= 80
    assert sum("90.00 %   -2.20  49 %    25 %    25.0 %  1.50 ms" in line for line in lines) == 3


def test_strategy_is_text_and_not_markup(tmp_path):
    write_job(tmp_path, 0, ["strategy=[sfp,kd]"], accuracy=0.9, macs=10)
    write_job(tmp_path, 1, ["strategy=sfp"], accuracy=0.9, macs=20)

    assert "[sfp,kd]" in printed(sweep_report(tmp_path), 80)[2]


def test_strategies_that_no_override_names_come_from_the_summaries(tmp_path):
    write_job(tmp_path, 0, ["experiment=a"], accuracy=0.9, macs=10, strategy="sfp")
    write_job(tmp_path, 1, ["experiment=b"], accuracy=0.9, macs=20, strategy="gmp")

    lines = printed(sweep_report(tmp_path), 80)

    assert lines[0].split()[:3] == ["Job", "strategy", "experiment"]
    assert lines[3].split()[:3] == ["1", "gmp", "b"]


@pytest.mark.parametrize("jobs", [1, 6, 40])
def test_sweep_picture_is_drawn_for_any_number_of_jobs(tmp_path, jobs):
    for number in range(jobs):
        sparsity, strategy, seed = number // 6, number % 6 // 3, number % 3
        overrides = [f"sparsity=0.{sparsity}", f"strategy={'ab'[strategy]}", f"seed={seed}"]
        write_job(
            tmp_path, number, overrides, accuracy=0.9 - 0.01 * sparsity**2 + 0.002 * seed, macs=4 * 10**7 >> sparsity
        )

    sweep_report(tmp_path)

    image = pixels(tmp_path / "sweep.png")
    assert image.shape[1] >= 1200
    assert image.shape[0] >= 700
    assert count_pixels(image, BLUE) > 100
    # The second strategy has the second colour.
    assert (count_pixels(image, VERMILLION) > 100) == (jobs > 1)


def test_seeds_of_a_sweep_share_a_setting(tmp_path, monkeypatch):
    for number in range(8):
        overrides = [f"sparsity=0.{number // 4}", f"strategy={'ab'[number % 4 // 2]}", f"data.seed={number % 2}"]
        write_job(tmp_path, number, overrides, accuracy=0.9, macs=10**7)
    drawn: list[Point] = []
    monkeypatch.setattr(sweeps, "draw_sweep", lambda points, *args, **kwargs: drawn.extend(points) or Figure())

    sweep_report(tmp_path)

    assert [(p.series, p.setting) for p in drawn] == [(s, x) for x in ("0.0", "0.1") for s in "aabb"]


def test_runs_without_a_baseline_claim_none_and_show_their_zeros(tmp_path, monkeypatch):
    for number, nonzeros in enumerate((30, 10)):
        (tmp_path / str(number)).mkdir()
        rows = [Row(name, 0.9, costs(100, nonzeros, 10**6, 400, 1.5)) for name in ("masked", "slim")]
        extra = {"overrides": [f"sparsity={number}"], "strategy": ["gmp"]}
        write_summary(tmp_path / str(number) / "summary.json", rows, ACCURACY, extra)
    figures: list[Figure] = []
    draw = sweeps.draw_sweep
    monkeypatch.setattr(
        sweeps, "draw_sweep", lambda *args, **kwargs: figures.append(draw(*args, **kwargs)) or figures[0]
    )

    lines = printed(sweep_report(tmp_path), 80)

    assert [squeezed(line) for line in lines[2:4]] == [
        "0 0 90.00 % - 100 % 100 % 30.0 % 1.50 ms",
        "1 1 90.00 % - 100 % 100 % 10.0 % 1.50 ms",
    ]
    assert "No job knows its baseline." in " ".join(lines)
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "remaining non-zero parameters of the whole network"
    assert [text.get_text() for text in axes.texts] == ["1"]
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    assert front.get_xdata()[0] == 0.1


def test_a_sweep_with_fewer_macs_is_drawn_over_them_each_job_with_its_own_baseline(tmp_path, monkeypatch):
    write_job(tmp_path, 0, ["strategy=sfp"], accuracy=0.9, macs=BASELINE.profile.macs // 2)
    (tmp_path / "1").mkdir()
    rows = [Row("baseline", 0.95, MASKED.profile), Row("slim", 0.5, MASKED.profile)]
    extra = {"overrides": ["strategy=gmp"], "strategy": ["gmp"]}
    write_summary(tmp_path / "1" / "summary.json", rows, ACCURACY, extra)
    drawn: list[object] = []
    monkeypatch.setattr(
        sweeps, "draw_sweep", lambda points, *_, metric, cost, legend: drawn.extend([points, metric, cost]) or Figure()
    )

    lines = printed(sweep_report(tmp_path), 80)

    assert drawn == [[Point("sfp", "", 0.5, 0.9, 0.922), Point("gmp", "", 1.0, 0.5, 0.95)], ACCURACY, "MACs"]
    # Different baselines have a column.
    assert lines[0].split()[:5] == ["Job", "strategy", "Baseline", "Slim", "Change"]
    assert [squeezed(line) for line in lines[2:3]] == ["0 sfp 92.20 % 90.00 % -2.20 50 % 25 % 25.0 % 1.50 ms"]
    assert squeezed(lines[3]).startswith("1 gmp 95.00 % 50.00 % -45.00")


def test_dense_models_of_older_runs_are_what_costs_are_shares_of_and_no_baseline(tmp_path):
    (tmp_path / "0").mkdir()
    rows = [replace(BASELINE, name="dense"), MASKED, SLIM]
    write_summary(tmp_path / "0" / "summary.json", rows, ACCURACY, {"strategy": ["sfp"]})

    assert squeezed(printed(sweep_report(tmp_path), 80)[2]) == "0 91.85 % - 48 % 41 % 41.0 % 1.71 ms"


def test_other_metrics_have_their_heading_and_jobs_of_another_one_no_result(tmp_path):
    error = Metric("mean_absolute_error", "min")
    for number, metric in enumerate((error, error, ACCURACY)):
        (tmp_path / str(number)).mkdir()
        rows = [replace(BASELINE, score=0.5), replace(SLIM, score=0.5 + number / 8)]
        write_summary(tmp_path / str(number) / "summary.json", rows, metric, {"overrides": [f"lr={number}"]})

    lines = printed(sweep_report(tmp_path), 80)

    assert [squeezed(line).split(" 48 %")[0] for line in lines[2:5]] == [
        "0 0 0.5000 +0.0000",
        "1 1 0.6250 +0.1250",
        "2 2 - - - - - -",
    ]
    text = " ".join(lines)
    assert "Test mean absolute error, the less the better" in text
    assert "Job 2 has no result: judged by test accuracy." in text
    assert (
        (tmp_path / "sweep.csv").read_text().startswith("job,lr,mean_absolute_error_baseline,mean_absolute_error_slim")
    )


def test_noisy_latencies_are_marked(tmp_path):
    (tmp_path / "0").mkdir()
    noisy = replace(SLIM, profile=replace(SLIM.profile, latency_high_ms=9.0))
    write_summary(tmp_path / "0" / "summary.json", [BASELINE, noisy], ACCURACY, {})

    lines = printed(sweep_report(tmp_path), 80)

    assert squeezed(lines[2]).endswith("~1.71 ms")
    assert "~: noisy" in " ".join(lines)


def test_networks_without_known_macs_are_drawn_over_what_is_known(tmp_path):
    (tmp_path / "0").mkdir()
    unknown = {"macs": math.nan, "latency_ms": math.nan, "latency_low_ms": math.nan, "latency_high_ms": math.nan}
    rows = [replace(row, profile=replace(row.profile, **unknown)) for row in (BASELINE, SLIM)]
    write_summary(tmp_path / "0" / "summary.json", rows, ACCURACY, {})

    lines = printed(sweep_report(tmp_path), 80)

    assert squeezed(lines[2]) == "0 91.85 % -0.35 - 41 % 41.0 % -"
    assert (tmp_path / "sweep.png").is_file()


def test_sweep_without_a_finished_job_has_a_table_and_no_picture(tmp_path):
    (tmp_path / "0").mkdir()

    lines = printed(sweep_report(tmp_path), 80)

    assert lines[2].split() == ["0", "-", "-", "-", "-", "-", "-"]
    assert not (tmp_path / "sweep.png").exists()


def test_diverged_jobs_are_listed_and_not_drawn(tmp_path):
    write_job(tmp_path, 0, ["lr=1"], accuracy=math.nan, macs=10)

    assert printed(sweep_report(tmp_path), 80)[2].split()[:4] == ["0", "-", "-", "0"]
    assert not (tmp_path / "sweep.png").exists()


def test_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a sweep folder with one folder a job, got "):
        sweep_report(tmp_path)
