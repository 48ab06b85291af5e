"""The curves that a run logged."""

import math

import pytest
from lightning.pytorch.loggers import CSVLogger
from report_examples import write_log

from lightning_prune.errors import InputError
from lightning_prune.reporting.metrics import read_metrics


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
