import csv
import json
import math
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure
from matplotlib.image import imread
from rich.console import Console, RenderableType

from lightning_prune.errors import InputError
from lightning_prune.reporting import sweeps
from lightning_prune.reporting.plots import Point, draw_curves, draw_sweep, pareto_front, spread
from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.report import EndTable, Row, plot_curves, read_metrics, read_summary, write_summary
from lightning_prune.reporting.sweeps import sweep_report

DENSE = Row("dense", 0.9220, Profile(272474, 272474, 40551424, 1101440, 3.2104, threads=2, batch_size=32))
MASKED = Row("masked", 0.9185, Profile(272474, 160474, 40551424, 1101440, 3.2204, threads=2, batch_size=32))
SLIM = Row("slim", 0.9185, Profile(111715, 111715, 19351424, 450000, 1.7104, threads=2, batch_size=32))


def printed(renderable: RenderableType, width: int) -> list[str]:
    file = StringIO()
    Console(file=file, width=width).print(renderable)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def squeezed(line: str) -> str:
    return " ".join(line.split())


def write_log(run_folder: Path, version: int, text: str) -> None:
    folder = run_folder / "csv" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text)


def pixels(path: Path) -> np.ndarray:
    return (imread(path)[:, :, :3] * 255).round().astype(int)


def count(image: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((image == color).all(axis=-1).sum())


# Curves ---------------------------------------------------------------------------------------------------------------


def test_curves_are_read_from_the_rows_that_hold_them(tmp_path):
    write_log(
        tmp_path,
        0,
        "epoch,lr-SGD,macs/ratio,step,test/accuracy,train/loss,val/accuracy\n"
        ",0.1,,0,,,\n"
        "0,,,19,,,0.25\n"
        "0,,0.75,19,,nan,\n"
        "1,,,29,,,0.375\n"
        "1,,,39,,,0.5\n"
        "1,,0.625,39,,1.5,\n"
        "2,,,40,0.55,,\n",
    )

    curves = read_metrics(tmp_path)

    assert math.isnan(curves["train/loss"].pop(1))
    assert curves == {
        "macs/ratio": {1: 0.75, 2: 0.625},
        "train/loss": {2: 1.5},
        "val/accuracy": {1: 0.25, 2: 0.5},
    }


def test_resumed_run_supersedes_what_came_after_its_checkpoint(tmp_path):
    header = "epoch,step,val/accuracy,val/loss\n"
    write_log(tmp_path, 0, header + "".join(f"{epoch},{9 + 10 * epoch},0.1,7\n" for epoch in range(5)))
    write_log(tmp_path, 2, header + "1,19,0.2,\n2,29,0.2,\n3,39,0.2,\n4,49,0.2,\n")
    # It comes after version_2, in numbers; one that only tested supersedes nothing.
    write_log(tmp_path, 10, header + "2,29,0.3,\n3,39,0.4,\n")
    write_log(tmp_path, 11, "epoch,step,test/accuracy\n0,10,0.9\n")

    # The first epoch of a later version may be half logged: what it lacks is left as it was.
    assert read_metrics(tmp_path) == {"val/accuracy": {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, "val/loss": {1: 7.0, 2: 7.0}}


def test_half_a_line_at_the_end_of_a_killed_run_is_dropped(tmp_path):
    write_log(tmp_path, 0, "epoch,step,val/accuracy\n0,9,0.5\n1,19,0.6")

    assert read_metrics(tmp_path) == {"val/accuracy": {1: 0.5}}


def test_lightnings_own_logger_is_understood(tmp_path):
    for version, epochs in enumerate([(0, 1, 2), (2, 3)]):
        logger = CSVLogger(tmp_path, "csv")
        for epoch in epochs:
            logger.log_metrics({"val/accuracy": epoch / 8 + version / 16, "epoch": epoch}, step=10 * epoch + 9)
            logger.save()
            logger.log_metrics({"train/loss": 1.0, "epoch": epoch}, step=10 * epoch + 9)
        logger.save()

    curves = read_metrics(tmp_path)

    assert curves["val/accuracy"] == {1: 0.0, 2: 0.125, 3: 0.3125, 4: 0.4375}
    assert curves["train/loss"] == dict.fromkeys((1, 2, 3, 4), 1.0)


def test_folder_without_logs_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected a run folder with csv/version_\*/metrics.csv, got "):
        read_metrics(tmp_path)


# Pictures of one run --------------------------------------------------------------------------------------------------


def curves_of(epochs: int) -> dict[str, dict[int, float]]:
    rising = {epoch: 0.9 - 0.5 / epoch for epoch in range(1, epochs + 1)}
    falling = {epoch: 0.4 + 0.2 / epoch for epoch in range(1, epochs + 1)}
    return {"train/accuracy": rising, "val/accuracy": rising, "sparsity/total": falling, "macs/ratio": falling}


BLUE, VERMILLION, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)


def test_curves_picture_shows_accuracy_and_what_is_left(tmp_path):
    lines = [f"{epoch},{epoch},{0.9 - 0.1 / (epoch + 1)},0.4,0.6\n" for epoch in range(40)]
    write_log(tmp_path, 0, "epoch,step,val/accuracy,sparsity/total,macs/ratio\n" + "".join(lines))

    path = plot_curves(tmp_path, [DENSE, SLIM], hard_from_epoch=36)

    image = pixels(path)
    height, width, _ = image.shape
    assert path == tmp_path / "curves.png"
    assert width >= 1200
    assert height >= 700
    assert min(count(image, color) for color in (BLUE, VERMILLION, GREEN)) > 300


@pytest.mark.parametrize("epochs", [1, 2, 60])
@pytest.mark.parametrize("hard_from_epoch", [None, 0, 1, 200])
def test_curves_are_drawn_for_any_length(tmp_path, epochs, hard_from_epoch):
    figure = draw_curves(curves_of(epochs), "run", accuracies={}, hard_from_epoch=hard_from_epoch)
    figure.savefig(tmp_path / "curves.png")

    image = pixels(tmp_path / "curves.png")
    assert len(figure.axes) == 2
    assert min(count(image, color) for color in (BLUE, VERMILLION, GREEN)) > 30
    for axes in figure.axes:
        # Nothing lies outside of its panel.
        values = [value for line in axes.lines for value in line.get_ydata()]
        assert axes.get_ylim()[0] <= min(values) <= max(values) <= axes.get_ylim()[1]


def test_run_without_pruning_has_an_accuracy_panel_only():
    curves = {"val/accuracy": {1: 0.25, 2: math.nan, 3: 0.5, 4: math.nan}, "train/loss": {1: math.nan}}

    figure = draw_curves(curves, "run", accuracies={"dense": 0.9185, "slim": math.nan})

    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["50.0 %  validation"]
    assert "dense 91.85 %     slim -" in figure.texts[-1].get_text()


def test_run_with_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match=r"val/accuracy.*got train/loss$"):
        draw_curves({"train/loss": {1: 0.5}}, "run", accuracies={})


def test_many_accuracies_stand_below_the_heading(tmp_path):
    names = ("teacher", "dense", "masked", "slim", "fine-tuned")
    for count, below in ((2, False), (5, True)):
        figure = draw_curves(curves_of(20), "2026-11-22/11-25-49", accuracies=dict.fromkeys(names[:count], 0.9944))
        figure.savefig(tmp_path / "curves.png")
        heading, stated = (text.get_window_extent() for text in (figure.texts[0], figure.texts[-1]))
        assert stated.x1 < figure.bbox.x1
        assert stated.x0 < heading.x1 if below else stated.x0 > heading.x1
        assert stated.y1 < heading.y1 - 20 if below else stated.y1 > heading.y0
        # Nor do they reach into the panels.
        assert stated.y0 > figure.axes[0].get_tightbbox().y1


def test_accuracy_is_zoomed_in_but_not_on_noise():
    curves = {"val/accuracy": {1: 0.9, 2: 0.901}, "macs/ratio": {1: 0.5, 2: 0.5}}

    accuracy, size = draw_curves(curves, "run", accuracies={}).axes

    assert np.diff(accuracy.get_ylim()) == pytest.approx(0.06)
    assert size.get_ylim() == (0, 1)


def test_labels_move_apart_around_their_mean():
    assert spread([0.3, 0.9], gap=0.1) == [0.3, 0.9]
    assert spread([0.52, 0.5], gap=0.1) == pytest.approx([0.56, 0.46])


# The end table --------------------------------------------------------------------------------------------------------


def test_wide_table_has_numbers_and_ratios_side_by_side():
    lines = printed(EndTable([DENSE, MASKED, SLIM]), 120)

    assert lines[:1] + lines[2:5] == [
        "Model     Test accuracy      Parameters       Non-zeros             MACs             Bytes          Latency",
        "dense    92.20 %  +0.00   0.27 M  100 %   0.27 M  100 %   40.55 M  100 %   1.05 MiB  100 %   3.21 ms  100 %",
        "masked   91.85 %  -0.35   0.27 M  100 %   0.16 M   59 %   40.55 M  100 %   1.05 MiB  100 %   3.22 ms  100 %",
        "slim     91.85 %  -0.35   0.11 M   41 %   0.11 M   41 %   19.35 M   48 %   0.43 MiB   41 %   1.71 ms   53 %",
    ]


def test_the_teacher_comes_first_and_is_not_what_others_are_compared_with():
    teacher = Row("teacher", 0.9400, Profile(853018, 853018, 125485696, 3440000, 9.6304, threads=2, batch_size=32))
    tuned = Row("fine-tuned", 0.9250, SLIM.profile)

    lines = printed(EndTable([teacher, DENSE, MASKED, SLIM, tuned]), 120)

    assert [squeezed(line) for line in (lines[2], lines[3], lines[6])] == [
        "teacher 94.00 % +1.80 0.85 M 313 % 0.85 M 313 % 125.49 M 309 % 3.28 MiB 312 % 9.63 ms 300 %",
        "dense 92.20 % +0.00 0.27 M 100 % 0.27 M 100 % 40.55 M 100 % 1.05 MiB 100 % 3.21 ms 100 %",
        "fine-tuned 92.50 % +0.30 0.11 M 41 % 0.11 M 41 % 19.35 M 48 % 0.43 MiB 41 % 1.71 ms 53 %",
    ]
    assert "share of dense" in " ".join(lines)


@pytest.mark.parametrize("width", [80, 90])
def test_narrow_table_keeps_every_number_whole(width):
    wide = EndTable([Row("masked", 0.99, Profile(25557032, 25557032, 10**9 - 10**7, 102400000, 1234.5, 16, 128)), SLIM])

    lines = printed(wide, width)

    assert max(map(len, lines)) <= width
    assert squeezed(lines[3]) == "masked 99.00 % 25.56 M 25.56 M 990.00 M 97.66 MiB 1234.50 ms"
    assert squeezed(lines[4]) == "+0.00 100 % 100 % 100 % 100 % 100 %"
    assert squeezed(lines[5]) == "slim 91.85 % 0.11 M 0.11 M 19.35 M 0.43 MiB 1.71 ms"
    assert squeezed(lines[6]) == "-7.15 0.4 % 0.4 % 2.0 % 0.4 % 0.1 %"


def test_caption_states_the_conditions():
    caption = " ".join(printed(EndTable([DENSE, SLIM]), 120)[4:])

    assert "batch size 32, CPU threads 2" in caption
    assert "MACs: multiply-accumulates of conv and linear layers, one image" in caption


def test_unknown_accuracy_and_zero_costs_are_dashes():
    nothing = Row("[none]", math.nan, Profile(0, 0, 0, 16, 0.5, 1, 1))

    lines = printed(EndTable([nothing]), 120)

    assert squeezed(lines[2]) == "[none] - - 0 - 0 - 0 - 16 B 100 % 0.50 ms 100 %"


# The summary ----------------------------------------------------------------------------------------------------------


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


# Sweeps ---------------------------------------------------------------------------------------------------------------


def write_job(
    sweep: Path, number: int, overrides: list[str], accuracy: float, macs: int, strategy: str = "sfp"
) -> None:
    (sweep / str(number)).mkdir(parents=True)
    slim = Row("slim", accuracy, Profile(68118, 68118, macs, 300000, 1.5, 2, 32))
    write_summary(sweep / str(number) / "summary.json", [DENSE, slim], {"overrides": overrides, "strategy": strategy})


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

    assert lines[0].split() == ["Job", "sparsity", "Dense", "Slim", "MACs", "Params", "Non-zero", "Latency"]
    assert [squeezed(line) for line in lines[2:7]] == [
        "0 0.0 92.20 % 90.00 % 40.55 M 100 % 25 % 25.0 % 1.50 ms",
        "2 0.2 92.20 % 88.00 % 13.52 M 33 % 25 % 25.0 % 1.50 ms",
        "9 0.9 - - - - - -",
        "10 0.10 92.20 % 80.00 % 3.69 M 9 % 25 % 25.0 % 1.50 ms",
        "11 - - - - - -",
    ]
    assert "Job 9 has no result: failed or unfinished." in lines
    assert "Job 11 has no result: unreadable summary.json." in lines

    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == ["0", "2", "9", "10", "11"]
    assert [row["strategy.sfp.sparsity"] for row in rows] == ["0.0", "0.2", "0.9", "0.10", ""]
    assert [row["accuracy_slim"] for row in rows] == ["0.9", "0.88", "", "0.8", ""]
    assert float(rows[1]["macs_ratio"]) == pytest.approx(1 / 3, abs=1e-6)
    assert [row["problem"] for row in rows] == ["", "", "failed or unfinished", "", "unreadable summary.json"]


def test_sweep_counts_the_fine_tuned_model_and_leaves_the_teacher_out(tmp_path):
    teacher = Row("teacher", 0.99, Profile(10**9, 10**9, 10**9, 10**9, 9.0, 2, 32))
    tuned = Row("fine-tuned", 0.925, SLIM.profile)
    (tmp_path / "0").mkdir()
    write_summary(tmp_path / "0" / "summary.json", [teacher, DENSE, MASKED, SLIM, tuned], {"strategy": ["sfp", "kd"]})

    line = printed(sweep_report(tmp_path), 100)[2]

    assert squeezed(line) == "0 92.20 % 92.50 % 19.35 M 48 % 41 % 41.0 % 1.71 ms"


def test_table_of_many_settings_shortens_settings_and_no_number(tmp_path):
    for number in range(3):
        overrides = [f"{key}=value-{number}" for key in ("strategy", "criterion", "schedule", "optimizer.lr", "seed")]
        write_job(tmp_path, number, overrides, accuracy=0.9, macs=20000000)

    lines = printed(sweep_report(tmp_path), 80)

    assert max(map(len, lines)) <= 80
    assert sum("92.20 %  90.00 %  20.00 M  49 %    25 %    25.0 %  1.50 ms" in line for line in lines) == 3


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
    assert count(image, BLUE) > 100
    # The second strategy has the second colour.
    assert (count(image, VERMILLION) > 100) == (jobs > 1)


def test_seeds_of_a_sweep_share_a_setting(tmp_path, monkeypatch):
    for number in range(8):
        overrides = [f"sparsity=0.{number // 4}", f"strategy={'ab'[number % 4 // 2]}", f"data.seed={number % 2}"]
        write_job(tmp_path, number, overrides, accuracy=0.9, macs=10**7)
    drawn: list[Point] = []
    monkeypatch.setattr(sweeps, "draw_sweep", lambda points, *args, **kwargs: drawn.extend(points) or Figure())

    sweep_report(tmp_path)

    assert [(p.series, p.setting) for p in drawn] == [(s, x) for x in ("0.0", "0.1") for s in "aabb"]


def test_sweep_picture_labels_the_front_of_the_means():
    points = [
        Point("sfp", "0.3", cost=0.6, accuracy=0.90),
        Point("sfp", "0.3", cost=0.6, accuracy=0.92),
        Point("sfp", "0.5", cost=0.3, accuracy=0.80),
        # The lucky seed of this setting lies above the front, its mean does not.
        Point("gmp", "0.4", cost=0.7, accuracy=0.94),
        Point("gmp", "0.4", cost=0.7, accuracy=0.86),
    ]

    (axes,) = draw_sweep(points, "sweep", "", cost="MACs", legend="strategy", baseline=0.93).axes

    assert [text.get_text() for text in axes.texts] == ["dense 93.00 %", "0.5", "0.3"]
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    # Between two points of the front the cheaper one is the best there is.
    assert front.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(front.get_xdata()[:2], [0.3, 0.6])
    np.testing.assert_allclose(front.get_ydata(), [0.80, 0.91, 0.91])


def test_runs_without_a_dense_model_claim_none_and_show_their_zeros(tmp_path, monkeypatch):
    for number, nonzeros in enumerate((30, 10)):
        (tmp_path / str(number)).mkdir()
        rows = [Row(name, 0.9, Profile(100, nonzeros, 10**6, 400, 1.5, 2, 32)) for name in ("masked", "slim")]
        extra = {"overrides": [f"sparsity={number}"], "strategy": ["gmp"]}
        write_summary(tmp_path / str(number) / "summary.json", rows, extra)
    figures: list[Figure] = []
    draw = sweeps.draw_sweep
    monkeypatch.setattr(
        sweeps, "draw_sweep", lambda *args, **kwargs: figures.append(draw(*args, **kwargs)) or figures[0]
    )

    lines = printed(sweep_report(tmp_path), 80)

    assert [squeezed(line) for line in lines[2:4]] == [
        "0 0 - 90.00 % 1.00 M 100 % 100 % 30.0 % 1.50 ms",
        "1 1 - 90.00 % 1.00 M 100 % 100 % 10.0 % 1.50 ms",
    ]
    (axes,) = figures[0].axes
    assert axes.get_xlabel() == "remaining non-zero parameters of the dense model"
    assert [text.get_text() for text in axes.texts] == ["1"]
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    assert front.get_xdata()[0] == 0.1


def test_a_sweep_with_fewer_macs_is_drawn_over_them_and_its_dense_model_is_that_of_the_jobs_that_have_one(
    tmp_path, monkeypatch
):
    write_job(tmp_path, 0, ["strategy=sfp"], accuracy=0.9, macs=DENSE.profile.macs // 2)
    (tmp_path / "1").mkdir()
    rows = [Row(name, 0.5, MASKED.profile) for name in ("masked", "slim")]
    write_summary(tmp_path / "1" / "summary.json", rows, {"overrides": ["strategy=gmp"], "strategy": ["gmp"]})
    drawn: list[object] = []
    monkeypatch.setattr(
        sweeps,
        "draw_sweep",
        lambda points, *_, cost, legend, baseline: drawn.extend([points, cost, baseline]) or Figure(),
    )

    sweep_report(tmp_path)

    assert drawn == [[Point("sfp", "", 0.5, 0.9), Point("gmp", "", 1.0, 0.5)], "MACs", DENSE.accuracy]


def test_sweep_without_a_finished_job_has_a_table_and_no_picture(tmp_path):
    (tmp_path / "0").mkdir()

    lines = printed(sweep_report(tmp_path), 80)

    assert lines[2].split() == ["0", "-", "-", "-", "-", "-", "-"]
    assert not (tmp_path / "sweep.png").exists()


def test_diverged_jobs_are_listed_and_not_drawn(tmp_path):
    write_job(tmp_path, 0, ["lr=1"], accuracy=math.nan, macs=10)

    assert printed(sweep_report(tmp_path), 80)[2].split()[:4] == ["0", "92.20", "%", "-"]
    assert not (tmp_path / "sweep.png").exists()


def test_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a sweep folder with one folder a job, got "):
        sweep_report(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_pareto_front_is_what_nothing_dominates(seed):
    generator = np.random.default_rng(seed)
    # A coarse grid, so that there are equal costs, equal values and equal points.
    points = [(float(x), float(y)) for x, y in generator.integers(0, 8, size=(seed + 1, 2))]

    def dominated(point: tuple[float, float]) -> bool:
        return any(x <= point[0] and y >= point[1] and (x, y) != point for x, y in points)

    assert pareto_front(points) == sorted({point for point in points if not dominated(point)})
