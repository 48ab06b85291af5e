"""The table at the end of a run."""

import math

import pytest
from report_examples import DENSE, MASKED, SLIM, printed, squeezed

from lightning_prune.reporting.end_table import EndTable
from lightning_prune.reporting.profiling import Profile
from lightning_prune.reporting.rows import Row


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
