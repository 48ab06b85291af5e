"""The same at all times."""

from lightning_prune.pruning.schedules.constant import Constant


def test_constant() -> None:
    assert [Constant()(progress, 0.3) for progress in (0.0, 0.5, 1.0)] == [0.3] * 3
