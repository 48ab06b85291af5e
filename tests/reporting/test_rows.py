"""What a row says of a model, and with which others are compared."""

import math
from dataclasses import replace

import pytest
from report_examples import BASELINE, MASKED, SLIM

from lightning_prune.reporting.rows import Metric, reference


@pytest.mark.parametrize(
    ("name", "is_share"),
    [
        ("accuracy", True),
        ("top5_acc", True),
        ("Accuracy", True),
        ("map", False),
        ("loss", False),
        ("accuracy_loss", False),
        ("mean_absolute_error", False),
        ("inaccuracy", False),
    ],
)
def test_accuracies_are_shares_of_examples_and_nothing_else_is(name, is_share):
    assert Metric(name, "max").is_share is is_share


def test_headings_say_the_split_in_words():
    assert Metric("accuracy", "max").heading == "Test accuracy"
    assert Metric("map", "max", "val").heading == "Validation map"
    assert Metric("mean_absolute_error", "min").heading == "Test mean absolute error"


def test_better_is_more_or_less_and_never_nan():
    assert Metric("map", "max").is_better(0.4, 0.3)
    assert Metric("loss", "min").is_better(0.3, 0.4)
    for mode in ("max", "min"):
        assert not any(Metric("map", mode).is_better(*pair) for pair in ((math.nan, 1.0), (1.0, math.nan), (1.0, 1.0)))


def test_shares_of_known_numbers_of_examples_have_an_interval():
    low, high = replace(SLIM, score=0.99, examples=360).interval
    assert low < 0.99 < high
    for row in (replace(SLIM, examples=None), replace(SLIM, score=math.nan), replace(SLIM, score=99.2)):
        assert row.interval is None


def test_the_baseline_is_the_reference_and_else_the_first_of_the_runs_own():
    teacher = replace(SLIM, name="teacher")
    unknown = replace(BASELINE, score=math.nan)
    assert reference([teacher, MASKED, SLIM, unknown]) is unknown
    assert reference([teacher, MASKED, SLIM]) is MASKED
    assert reference([teacher]) is teacher
