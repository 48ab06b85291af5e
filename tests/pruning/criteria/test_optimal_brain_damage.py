"""The rise of a loss that is known exactly."""

import torch

from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.criteria.optimal_brain_damage import OptimalBrainDamage


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_optimal_brain_damage_is_the_exact_rise_of_a_separable_quadratic() -> None:
    weights, diagonal = torch.tensor([0.5, 0.8, 2.0]), torch.tensor([4.0, 1.0, 0.25])
    # Trained to its minimum, at `weights`, this loss is 0 there; removing weight i is a step of -weights[i].
    steps = -torch.diag(weights)
    rises = torch.stack([step @ torch.diag(diagonal) @ step / 2 for step in steps])
    scores = OptimalBrainDamage()((weights * diagonal * weights).unsqueeze(1))
    torch.testing.assert_close(scores, rises)
    assert int(scores.argmin()) == 1
    assert int(Magnitude()(weights.unsqueeze(1)).argmin()) == 0


def test_optimal_brain_damage_sums_over_a_unit_and_removes_first_what_curves_downward() -> None:
    units = torch.tensor([[1.0, 2.0], [0.5, -4.0], [0.0, 0.0]])
    assert OptimalBrainDamage()(units).tolist() == [1.5, -1.75, 0.0]
