"""The picture of a run."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from report_examples import ACCURACY, BASELINE, BLUE, GREEN, SLIM, VERMILLION, count_pixels, pixels, write_log

from lightning_prune.reporting.curve_plot import draw_curves, plot_curves, spread
from lightning_prune.reporting.rows import Metric


def saved_by(draw: Callable[[], object]) -> list[Figure]:
    """Return the figures that are written, in their order."""
    figures: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path: figures.append(figure))
        draw()
    return figures


def all_axes(figure: Figure) -> list[Axes]:
    """Return the panels of a figure, and what lies in or beside them."""
    return [*figure.axes, *(child for axes in figure.axes for child in axes.child_axes)]


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

    figure = draw_curves(curves, "run", ACCURACY, scores={"baseline": 0.9185, "slim": math.nan})

    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["50.0 %  validation"]
    assert "baseline 91.85 %     slim -" in figure.texts[-1].get_text()


def test_run_with_nothing_to_draw_has_no_picture(tmp_path):
    write_log(tmp_path, 0, "epoch,step,lr-SGD,val/accuracy\n0,9,0.5,nan\n")

    assert plot_curves(tmp_path, [SLIM], ACCURACY) is None
    assert not (tmp_path / "curves.png").exists()


def test_zeros_are_drawn_without_channels_that_could_be_followed():
    curves = {"sparsity/total": {1: 0.5}, "sparsity/fc": {1: 0.5}}

    assert len(draw_curves(curves, "run", ACCURACY, scores={}).axes) == 2


def test_without_the_metric_the_loss_is_drawn_by_its_own_scale():
    (axes,) = draw_curves({"train/loss": {1: 3.5, 2: 2.25}}, "run", ACCURACY, scores={}).axes

    assert axes.get_title(loc="left") == "Loss"
    assert [text.get_text() for text in axes.texts] == ["2.250  training"]
    low, high = axes.get_ylim()
    assert 2 < low < 2.25
    assert 3.5 < high < 4


@pytest.mark.parametrize("names", [("train/map", "val/map"), ("train_map_epoch", "valid_map"), ("training/map", "map")])
def test_other_metrics_have_their_own_heading_and_scale(names):
    metric = Metric("map", "max")

    figure = draw_curves({name: {1: 0.1, 2: 0.25} for name in names}, "run", metric, scores={"slim": 0.31415926})

    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Map"
    assert [text.get_text() for text in axes.texts] == ["0.2500  training", "0.2500  validation"]
    assert "test map     slim 0.3142" in figure.texts[-1].get_text()
    assert np.diff(axes.get_ylim()) < 0.2


def test_fine_tuning_stands_behind_the_epochs_of_the_training(tmp_path):
    write_log(tmp_path, 0, "epoch,step,val/accuracy,macs/ratio\n0,9,0.5,1.0\n1,19,0.75,0.5\n1,20,,\n")
    write_log(
        tmp_path / "finetune", 0, "epoch,step,val/accuracy,macs/ratio,test/accuracy\n0,9,0.8,1,\n1,19,0.9,1,0.7\n"
    )
    figures = saved_by(lambda: plot_curves(tmp_path, [SLIM, replace(SLIM, name="scratch-E")], ACCURACY))

    upper, lower = figures[0].axes
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in upper.lines if line.get_marker() == "o"]
    assert lines == [([1, 2], [0.5, 0.75]), ([3, 4], [0.8, 0.9])]
    assert [text.get_text().strip() for text in upper.texts] == ["90.0 %  validation", "scratch-E"]
    # What is left of the slim model is all of it, and no share of the dense one's.
    assert [list(line.get_xdata()) for line in lower.lines if line.get_marker() == "o"] == [[1, 2]]
    for axes in (upper, lower):
        assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "None"] == [2]


def test_test_scores_in_the_log_disturb_nothing(tmp_path):
    write_log(tmp_path, 0, "epoch,step,val/accuracy,test/accuracy_slim\n0,9,0.5,\n1,19,0.75,\n2,20,,0.1\n,20,,0.2\n")

    ((axes,),) = [figure.axes for figure in saved_by(lambda: plot_curves(tmp_path, [SLIM], ACCURACY))]

    (line,) = axes.lines
    assert list(line.get_ydata()) == [0.5, 0.75]


def test_pruned_weights_are_drawn_as_what_is_left_of_each_layer():
    zeros = {"conv1": (0.0, 0.5), "layer1.conv": (0.25, 0.75)}
    curves = {f"sparsity/network.{name}": dict(enumerate(values, 1)) for name, values in zeros.items()}
    curves |= {"val/accuracy": {1: 0.9, 2: 0.9}, "sparsity/total": {1: 0.2, 2: 0.7}, "macs/ratio": {1: 1.0, 2: 0.995}}

    _, total, layers, _ = all_axes(draw_curves(curves, "run", ACCURACY, scores={}))

    assert total.get_title(loc="left") == "Non-zero weights left"
    assert list(total.lines[0].get_ydata()) == pytest.approx([0.8, 0.3])
    (mesh,) = layers.collections
    np.testing.assert_allclose(mesh.get_array(), [[1.0, 0.5], [0.75, 0.25]])
    assert [label.get_text() for label in layers.get_yticklabels()] == ["conv1", "layer1.conv"]


@pytest.mark.parametrize("layers", [1, 60, 500])
def test_any_number_of_layers_fits(tmp_path, layers):
    curves = {f"sparsity/{number}": {1: 0.5, 3: 0.6} for number in range(layers)}
    curves |= {"sparsity/total": {1: 0.5, 3: 0.6}, "macs/ratio": {1: 1.0, 3: 1.0}}

    figure = draw_curves(curves, "run", ACCURACY, scores={})
    figure.savefig(tmp_path / "curves.png")

    assert len(figure.axes[1].get_yticklabels()) <= 40
    assert figure.get_size_inches()[1] < 12


def test_a_run_that_prunes_nothing_has_no_panel_of_it():
    curves = {"val/accuracy": {1: 0.5}, "sparsity/total": {1: 0.0}, "macs/ratio": {1: 1.0}, "sparsity/fc": {1: 0.0}}

    assert len(all_axes(draw_curves(curves, "run", ACCURACY, scores={}))) == 1


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
