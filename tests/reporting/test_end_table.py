"""The table at the end of a run."""

import math
from dataclasses import replace

import pytest
from report_examples import ACCURACY, BASELINE, MASKED, SLIM, costs, printed, squeezed

from lightning_prune.reporting.end_table import EndTable
from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Metric, Row

TEACHER = Row("teacher", 0.9400, costs(853018, 853018, 125485696, 3440000, 9.6304), 10000)
INTERVAL = "91.7-92.7"
"""Of 0.922 in 10000 examples 1.96 standard errors are 0.53 points."""


def test_wide_table_has_all_numbers_side_by_side():
    lines = printed(EndTable([BASELINE, MASKED, SLIM], ACCURACY), 160)

    assert [squeezed(line) for line in lines[:1] + lines[2:5]] == [
        "Model Test accuracy Parameters Non-zeros MACs Bytes Latency",
        f"baseline 92.20 % +0.00 {INTERVAL} 0.27 M 100 % 0.27 M 100 % 40.55 M 100 % 1.05 MiB 100 % "
        "3.21 ms 100 % 3.05-3.37",
        "masked 91.85 % -0.35 91.3-92.4 0.27 M 100 % 0.16 M 59 % 40.55 M 100 % 1.05 MiB 100 % 3.22 ms 100 % 3.06-3.38",
        "slim 91.85 % -0.35 91.3-92.4 0.11 M 41 % 0.11 M 41 % 19.35 M 48 % 0.43 MiB 41 % 1.71 ms 53 % 1.62-1.80",
    ]


def test_the_teacher_comes_first_and_is_not_what_others_are_compared_with():
    tuned = replace(SLIM, name="fine-tuned", score=0.9250)

    lines = printed(EndTable([TEACHER, BASELINE, MASKED, SLIM, tuned], ACCURACY), 120)

    assert [squeezed(line) for line in (lines[2], lines[3], lines[4], lines[10])] == [
        "teacher 94.00 % +1.80 0.85 M 313 % 0.85 M 313 % 125.49 M 309 % 3.28 MiB 312 % 9.63 ms 300 %",
        "93.5-94.4 9.1-10.1",
        "baseline 92.20 % +0.00 0.27 M 100 % 0.27 M 100 % 40.55 M 100 % 1.05 MiB 100 % 3.21 ms 100 %",
        "fine-tuned 92.50 % +0.30 0.11 M 41 % 0.11 M 41 % 19.35 M 48 % 0.43 MiB 41 % 1.71 ms 53 %",
    ]
    assert "share of baseline" in " ".join(lines)
    assert "Baseline: trained without compression by the same recipe, or what the run began with." in " ".join(lines)


@pytest.mark.parametrize("width", [80, 90])
def test_narrow_table_keeps_every_number_whole(width):
    large = costs(25557032, 25557032, 10**9 - 10**7, 102400000, 1234.5, 16, 128)
    wide = EndTable([Row("baseline", 0.99, large, 50000), replace(SLIM, name="fine-tuned")], ACCURACY)

    lines = printed(wide, width)

    assert max(map(len, lines)) <= width
    assert [squeezed(line) for line in lines[3:9]] == [
        "baseline 99.00 % 25.56 M 25.56 M 990.00 M 97.66 MiB 1234.50 ms",
        "+0.00 100 % 100 % 100 % 100 % 100 %",
        "98.9-99.1 1173-1296",
        "fine-tuned 91.85 % 0.11 M 0.11 M 19.35 M 0.43 MiB 1.71 ms",
        "-7.15 0.4 % 0.4 % 2.0 % 0.4 % 0.1 %",
        "91.3-92.4 1.62-1.80",
    ]


def test_caption_states_the_conditions():
    caption = " ".join(printed(EndTable([BASELINE, SLIM], ACCURACY), 160)[4:])

    assert "batch size 32, CPU threads 2" in caption
    assert "MACs: multiply-accumulates of conv and linear layers, one sample" in caption
    assert "95 % interval of the accuracy over 10000 examples" in caption
    assert "oisy" not in caption


@pytest.mark.parametrize("width", [80, 120, 160])
def test_noisy_latencies_are_marked_and_their_ratios_called_rough(width):
    noisy = replace(SLIM.profile, latency_high_ms=40.7)

    lines = printed(EndTable([BASELINE, replace(SLIM, profile=noisy), MASKED], ACCURACY), width)

    text = squeezed(" ".join(lines))
    assert text.count("noisy") == 1
    assert text.count("~") == 2  # at the number and in the caption: the baseline's own are not rough
    assert "noisy ~53 %" in text
    assert "1.6-40.7" in text
    assert "Noisy: these lie far apart" in text


def test_all_ratios_to_a_noisy_latency_are_rough():
    noisy = replace(BASELINE.profile, latency_low_ms=1.0)

    lines = printed(EndTable([replace(BASELINE, profile=noisy), SLIM], ACCURACY), 160)

    assert squeezed(lines[2]).endswith("3.21 ms noisy ~100 % 1.00-3.37")
    assert squeezed(lines[3]).endswith("1.71 ms ~53 % 1.62-1.80")


def test_an_unknown_baseline_has_costs_and_no_score():
    lines = printed(EndTable([replace(BASELINE, score=math.nan), SLIM], ACCURACY), 160)

    assert squeezed(lines[2]).startswith("baseline - - 0.27 M 100 %")
    assert squeezed(lines[3]).startswith("slim 91.85 % - 91.3-92.4 0.11 M 41 %")


def test_other_metrics_have_four_digits_and_a_signed_change():
    rows = [replace(BASELINE, score=0.31415926), replace(SLIM, score=0.30004)]

    lines = printed(EndTable(rows, Metric("mean_absolute_error", "min", "val")), 160)

    assert squeezed(lines[0]).startswith("Model Validation mean absolute error Parameters")
    assert squeezed(lines[2]).startswith("baseline 0.3142 +0.0000 0.27 M")
    assert squeezed(lines[3]).startswith("slim 0.3000 -0.0141 0.11 M")
    caption = " ".join(lines[4:])
    assert "The less of the metric, the better: mean absolute error." in caption
    assert "95 %" not in caption


def test_an_accuracy_that_a_module_logs_in_percent_is_printed_as_it_is():
    lines = printed(EndTable([replace(BASELINE, score=92.2), replace(SLIM, score=91.85)], ACCURACY), 160)

    assert squeezed(lines[3]).startswith("slim 91.85 -0.35 0.11 M")


def test_networks_whose_input_is_not_known_have_dashes_for_macs_and_latency():
    costs = Profile(1000, 900, math.nan, 4000, math.nan, math.nan, math.nan, 2, 0)

    lines = printed(EndTable([Row("baseline", 0.3, costs), Row("slim", 0.2, costs)], Metric("map", "max")), 160)

    assert squeezed(lines[3]) == "slim 0.2000 -0.1000 1.00 K 100 % 900 100 % - - 3.91 KiB 100 % - -"
    assert not {"batch", "MACs:", "Latency:"} & set(" ".join(lines[4:]).split())


def test_unknown_score_and_zero_costs_are_dashes():
    nothing = Row("[none]", math.nan, costs(0, 0, 0, 16, 0.5, 1, 1))

    lines = printed(EndTable([nothing], ACCURACY), 160)

    assert squeezed(lines[2]) == "[none] - - 0 - 0 - 0 - 16 B 100 % 0.50 ms 100 % 0.47-0.53"
