"""FISTA against the numbers of the specification, worked by hand, and against a problem with a known solution."""

import pytest
import torch

from lightning_prune.pruning.gal.fista import Fista


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (1.0, (1.35, 1.025, 0.816715, 0.713155, 0.679079, 0.679338)),
        (0.2, (0.95, 0.425, 0.08854, 0.0, 0.0)),
    ],
)
def test_scalar_problem(target: float, expected: tuple[float, ...]) -> None:
    fista = Fista(torch.tensor([2.0], dtype=torch.float64))
    for value in expected:
        fista.step(fista.point - target, rate=0.5, l1=0.3)
        assert float(fista.values) == pytest.approx(value, abs=1e-5)


def test_gradient_at_the_values_takes_another_way() -> None:
    fista = Fista(torch.tensor([2.0], dtype=torch.float64))
    for value in (1.35, 1.025, 0.77093, 0.625188, 0.585195, 0.618651):
        fista.step(fista.values - 1, rate=0.5, l1=0.3)
        assert float(fista.values) == pytest.approx(value, abs=1e-5)


def test_finds_the_solution_of_a_lasso_with_numbers_of_at_least_zero() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(30, 10, dtype=torch.float64)
    target = torch.randn(30, dtype=torch.float64)
    gram, product, l1 = matrix.T @ matrix, matrix.T @ target, 2.0
    fista = Fista(torch.zeros(10, dtype=torch.float64))
    for _ in range(3000):
        fista.step(gram @ fista.point - product, rate=1 / float(torch.linalg.matrix_norm(gram, 2)), l1=l1)
    # Karush, Kuhn, Tucker: the gradient is -l1 where a number is positive, and at least that where it is zero.
    gradient = gram @ fista.values - product
    positive = fista.values > 0
    assert positive.any()
    assert not positive.all()
    torch.testing.assert_close(gradient[positive], torch.full_like(gradient[positive], -l1))
    assert (gradient[~positive] >= -l1).all()


def test_restarts_where_momentum_has_carried_it_past_its_goal() -> None:
    ways = []
    for restart in (False, True):
        fista = Fista(torch.tensor([10.0, 0.0], dtype=torch.float64), restart)
        way = []
        for _ in range(60):
            fista.step((fista.point - 5) * torch.tensor([0.02, 1.0]), rate=1.0, l1=0.0)
            way.append(float(fista.values[0]))
        ways.append(way)
    assert min(ways[0]) < 4.6  # swings past 5
    assert min(ways[1]) > 4.9
    assert abs(ways[1][-1] - 5) < abs(min(ways[0]) - 5)


def test_goes_on_from_its_state() -> None:
    whole, first = Fista(torch.tensor([2.0, 1.0])), Fista(torch.tensor([2.0, 1.0]))
    for _ in range(6):
        whole.step(whole.point - 1, 0.3, 0.1)
    for _ in range(3):
        first.step(first.point - 1, 0.3, 0.1)
    second = Fista(torch.zeros(2))
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        second.step(second.point - 1, 0.3, 0.1)
    assert torch.equal(second.values, whole.values)
    assert torch.equal(second.point, whole.point)


def test_what_is_kept_is_at_rest() -> None:
    fista = Fista(torch.tensor([2.0, 1.0]))
    fista.step(fista.point, 0.3, 0.1)
    fista.keep(torch.tensor([False, True]), torch.tensor([5.0, 5.0]))
    assert fista.values[1] == fista.point[1] == 5
    assert fista.values[0] < 2
