"""The picture of a run."""

import math

import numpy as np
import pytest
from report_examples import ACCURACY, BASELINE, BLUE, GREEN, SLIM, VERMILLION, count_pixels, pixels, write_log

from lightning_prune.errors import InputError
from lightning_prune.reporting.curve_plot import draw_curves, plot_curves, spread


def curves_of(epochs: int) -> dict[str, dict[int, float]]:
    rising = {epoch: 0.9 - 0.5 / epoch for epoch in range(1, epochs + 1)}
    falling = {epoch: 0.4 + 0.2 / epoch for epoch in range(1, epochs + 1)}
    return {"train/accuracy": rising, "val/accuracy": rising, "sparsity/total": falling, "macs/ratio": falling}


def test_curves_picture_shows_accuracy_and_what_is_left(tmp_path):
    lines = [f"{epoch},{epoch},{0.9 - 0.1 / (epoch + 1)},0.4,0.6\n" for epoch in range(40)]
    write_log(tmp_path, 0, "epoch,step,val/accuracy,sparsity/total,macs/ratio\n" + "".join(lines))

    path = plot_curves(tmp_path, [BASELINE, SLIM], ACCURACY, hard_from_epoch=36)

    image = pixels(path)
    height, width, _ = image.shape
    assert path == tmp_path / "curves.png"
    assert width >= 1200
    assert height >= 700
    assert min(count_pixels(image, color) for color in (BLUE, VERMILLION, GREEN)) > 300


@pytest.mark.parametrize("epochs", [1, 2, 60])
@pytest.mark.parametrize("hard_from_epoch", [None, 0, 1, 200])
def test_curves_are_drawn_for_any_length(tmp_path, epochs, hard_from_epoch):
    figure = draw_curves(curves_of(epochs), "run", ACCURACY, scores={}, hard_from_epoch=hard_from_epoch)
    figure.savefig(tmp_path / "curves.png")

    image = pixels(tmp_path / "curves.png")
    assert len(figure.axes) == 2
    assert min(count_pixels(image, color) for color in (BLUE, VERMILLION, GREEN)) > 30
    for axes in figure.axes:
        # Nothing lies outside of its panel.
        values = [value for line in axes.lines for value in line.get_ydata()]
        assert axes.get_ylim()[0] <= min(values) <= max(values) <= axes.get_ylim()[1]


def test_run_without_pruning_has_an_accuracy_panel_only():
    curves = {"val/accuracy": {1: 0.25, 2: math.nan, 3: 0.5, 4: math.nan}, "train/loss": {1: math.nan}}

    figure = draw_curves(curves, "run", ACCURACY, scores={"dense": 0.9185, "slim": math.nan})

    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["50.0 %  validation"]
    assert "dense 91.85 %     slim -" in figure.texts[-1].get_text()


def test_run_with_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match=r"val/accuracy.*got train/loss$"):
        draw_curves({"train/loss": {1: 0.5}}, "run", ACCURACY, scores={})


def test_many_accuracies_stand_below_the_heading(tmp_path):
    names, title = ("teacher", "baseline", "masked", "slim", "fine-tuned"), "2026-11-22/11-25-49"
    for count, below in ((2, False), (5, True)):
        figure = draw_curves(curves_of(20), title, ACCURACY, scores=dict.fromkeys(names[:count], 0.9944))
        figure.savefig(tmp_path / "curves.png")
        heading, stated = (text.get_window_extent() for text in (figure.texts[0], figure.texts[-1]))
        assert stated.x1 < figure.bbox.x1
        assert stated.x0 < heading.x1 if below else stated.x0 > heading.x1
        assert stated.y1 < heading.y1 - 20 if below else stated.y1 > heading.y0
        # Nor do they reach into the panels.
        assert stated.y0 > figure.axes[0].get_tightbbox().y1


def test_accuracy_is_zoomed_in_but_not_on_noise():
    curves = {"val/accuracy": {1: 0.9, 2: 0.901}, "macs/ratio": {1: 0.5, 2: 0.5}}

    accuracy, size = draw_curves(curves, "run", ACCURACY, scores={}).axes

    assert np.diff(accuracy.get_ylim()) == pytest.approx(0.06)
    assert size.get_ylim() == (0, 1)


def test_labels_move_apart_around_their_mean():
    assert spread([0.3, 0.9], gap=0.1) == [0.3, 0.9]
    assert spread([0.52, 0.5], gap=0.1) == pytest.approx([0.56, 0.46])
