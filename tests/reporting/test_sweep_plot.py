"""The picture of a sweep."""

from dataclasses import replace

import numpy as np
import pytest
from report_examples import ACCURACY

from lightning_prune.reporting.rows import Metric
from lightning_prune.reporting.sweep_plot import Point, draw_sweep, pareto_front


def test_sweep_picture_labels_the_front_of_the_means():
    points = [
        Point("sfp", "0.3", cost=0.6, score=0.90),
        Point("sfp", "0.3", cost=0.6, score=0.92),
        Point("sfp", "0.5", cost=0.3, score=0.80),
        # The lucky seed of this setting lies above the front, its mean does not.
        Point("gmp", "0.4", cost=0.7, score=0.94),
        Point("gmp", "0.4", cost=0.7, score=0.86),
    ]

    points = [replace(point, baseline=0.93) for point in points]

    (axes,) = draw_sweep(points, "sweep", "", metric=ACCURACY, cost="MACs", legend="strategy").axes

    assert [text.get_text() for text in axes.texts] == ["baseline 93.00 %", "0.5", "0.3"]
    assert axes.get_title(loc="left") == "Test accuracy of the slim model"
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    # Between two points of the front the cheaper one is the best there is.
    assert front.get_drawstyle() == "steps-post"
    np.testing.assert_allclose(front.get_xdata()[:2], [0.3, 0.6])
    np.testing.assert_allclose(front.get_ydata(), [0.80, 0.91, 0.91])


def test_the_front_of_an_error_is_what_is_low():
    metric = Metric("mean_absolute_error", "min")
    scores = {0.3: 2.5, 0.5: 1.5, 0.7: 1.75, 0.9: 1.0}
    points = [Point("", str(cost), cost, score, 0.75) for cost, score in scores.items()]

    (axes,) = draw_sweep(points, "sweep", "", metric=metric, cost="MACs", legend="").axes

    assert [text.get_text() for text in axes.texts] == ["baseline 0.7500", "0.3", "0.5", "0.9"]
    (front,) = [line for line in axes.lines if line.get_label() == "Pareto front"]
    np.testing.assert_allclose(front.get_ydata(), [2.5, 1.5, 1.0, 1.0])


def test_series_with_different_baselines_show_each_in_their_colour():
    baselines = {"resnet20": (0.92, 0.93), "resnet56": (0.95,)}
    points = [Point(name, "", 0.5, 0.9, baseline) for name, each in baselines.items() for baseline in each]

    (axes,) = draw_sweep(points, "sweep", "", metric=ACCURACY, cost="MACs", legend="model").axes

    labels = {text.get_text(): text.get_color() for text in axes.texts if text.get_text()}
    assert list(labels) == ["baseline 92.00 % to 93.00 %", "baseline 95.00 %"]
    assert len(set(labels.values())) == 2
    stars = [(line.get_ydata()[0], line.get_color()) for line in axes.lines if line.get_marker() == "*"]
    assert [score for score, _ in stars] == [0.92, 0.93, 0.95]
    assert stars[0][1] == stars[1][1] != stars[2][1]


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("seed", range(20))
def test_pareto_front_is_what_nothing_dominates(seed, mode):
    generator = np.random.default_rng(seed)
    # A coarse grid, so that there are equal costs, equal values and equal points.
    points = [(float(x), float(y)) for x, y in generator.integers(0, 8, size=(seed + 1, 2))]

    def dominated(point: tuple[float, float]) -> bool:
        def as_good(y: float) -> bool:
            return y >= point[1] if mode == "max" else y <= point[1]

        return any(x <= point[0] and as_good(y) and (x, y) != point for x, y in points)

    assert pareto_front(points, mode) == sorted({point for point in points if not dominated(point)})
