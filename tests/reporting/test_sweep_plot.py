"""The picture of a sweep."""

import numpy as np
import pytest

from lightning_prune.reporting.sweep_plot import Point, draw_sweep, pareto_front


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


@pytest.mark.parametrize("seed", range(20))
def test_pareto_front_is_what_nothing_dominates(seed):
    generator = np.random.default_rng(seed)
    # A coarse grid, so that there are equal costs, equal values and equal points.
    points = [(float(x), float(y)) for x, y in generator.integers(0, 8, size=(seed + 1, 2))]

    def dominated(point: tuple[float, float]) -> bool:
        return any(x <= point[0] and y >= point[1] and (x, y) != point for x, y in points)

    assert pareto_front(points) == sorted({point for point in points if not dominated(point)})
