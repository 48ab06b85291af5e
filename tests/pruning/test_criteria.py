"""Criteria against float64 numpy, and against what their papers say of them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.apoz import APoZ
from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale
from lightning_prune.pruning.criteria.fisher import Fisher
from lightning_prune.pruning.criteria.gate_taylor import GateTaylor
from lightning_prune.pruning.criteria.geometric_median import GeometricMedian
from lightning_prune.pruning.criteria.lamp import LAMP
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.criteria.mean_activation import MeanActivation
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.criteria.movement import Movement
from lightning_prune.pruning.criteria.normalized import Normalized
from lightning_prune.pruning.criteria.optimal_brain_damage import OptimalBrainDamage
from lightning_prune.pruning.criteria.random import Random
from lightning_prune.pruning.criteria.taylor import Taylor
from lightning_prune.pruning.lowest import lowest


def units(seed: int = 0) -> torch.Tensor:
    return torch.randn(24, 45, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5, float("inf")])
def test_magnitude_is_the_norm(p: float) -> None:
    weights = units().numpy()
    expected = np.abs(weights).max(axis=1) if p == float("inf") else (np.abs(weights) ** p).sum(axis=1) ** (1 / p)
    np.testing.assert_allclose(Magnitude(p)(units()).numpy(), expected, rtol=1e-12)


def test_geometric_median_is_the_sum_of_distances() -> None:
    weights = units().numpy()
    expected = [sum(np.sqrt(((one - other) ** 2).sum()) for other in weights) for one in weights]
    np.testing.assert_allclose(GeometricMedian()(units()).numpy(), expected, rtol=1e-12)


def test_geometric_median_removes_what_can_be_replaced_and_the_norm_what_is_small() -> None:
    filters = torch.tensor([[0.0], [1.0], [3.0], [6.0], [20.0]])
    assert GeometricMedian()(filters).tolist() == [30, 27, 25, 28, 70]
    assert lowest([GeometricMedian()(filters)], 2)[0].nonzero().reshape(-1).tolist() == [1, 2]
    assert lowest([Magnitude()(filters)], 2)[0].nonzero().reshape(-1).tolist() == [0, 1]


def test_geometric_median_does_not_see_translation_or_order_and_scales() -> None:
    scores, order = GeometricMedian()(units()), torch.randperm(24, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(GeometricMedian()(units() + 7.5), scores)
    torch.testing.assert_close(GeometricMedian()(units()[order]), scores[order])
    torch.testing.assert_close(GeometricMedian()(-3 * units()), 3 * scores)
    assert not torch.allclose(Magnitude()(units() + 7.5), Magnitude()(units()))


def test_opposite_filters_are_not_the_same() -> None:
    assert GeometricMedian()(torch.tensor([[-3.0], [3.0], [1.0]])).tolist() == [10, 8, 6]


def test_equal_filters_have_equal_scores_even_when_large() -> None:
    filters = (1e4 + units()).float()
    filters[5] = filters[3]
    scores = GeometricMedian()(filters)
    assert scores[5] == scores[3]
    torch.testing.assert_close(scores.double(), GeometricMedian()(filters.double()), rtol=1e-5, atol=0)


def change(parameter: Tensor) -> Tensor:
    """What a first-order criterion is shown of one parameter: `(n_channels, size)`."""
    assert parameter.grad is not None
    return (parameter * parameter.grad).detach().reshape(len(parameter), -1)


def gated(last: nn.Module, *before: nn.Module) -> Tensor:
    """Run a loss backward through `last` and a gate of value 1 behind it; return the gate's gradient."""
    gate = torch.ones(5, 1, 1, dtype=torch.float64, requires_grad=True)
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = (nn.Sequential(*before, last).double()(images) * gate).relu().square().mean()
    loss.backward()
    assert gate.grad is not None
    return gate.grad.view(-1)


def test_gate_taylor_is_the_squared_gradient_of_a_gate_behind_batch_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    gradient = gated(norm, nn.Conv2d(3, 5, 3))
    assert GateTaylor.reads[0] == ("scale", "shift")
    torch.testing.assert_close(GateTaylor()(torch.cat([change(norm.weight), change(norm.bias)], 1)), gradient.square())


def test_gate_taylor_is_the_squared_gradient_of_a_gate_behind_a_bare_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3)
    gradient = gated(conv)
    assert GateTaylor.reads[1] == ("filter", "bias")
    torch.testing.assert_close(GateTaylor()(torch.cat([change(conv.weight), change(conv.bias)], 1)), gradient.square())


def test_before_batch_norm_weights_have_a_taylor_score_and_the_filter_as_a_whole_has_none() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, bias=False)
    gated(nn.BatchNorm2d(5, eps=1e-15), conv)  # scaling a filter changes nothing
    assert (1e9 * GateTaylor()(change(conv.weight)) < Taylor()(change(conv.weight))).all()


def test_taylor_worked_by_hand() -> None:
    gradients, weights = torch.tensor([[0.2, -0.3, 0.1]]), torch.tensor([[1.0, 0.5, -2.0]])
    assert Taylor()(gradients * weights).item() == pytest.approx(0.1025)
    assert GateTaylor()(gradients * weights).item() == pytest.approx(0.0225)
    single = torch.tensor([1.0, -2.0, 0.5]) * torch.tensor([0.3, 0.1, -4.0])
    torch.testing.assert_close(Taylor()(single.unsqueeze(1)), torch.tensor([0.09, 0.04, 4.0]))


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


def test_fisher_worked_by_hand() -> None:
    assert Fisher()(torch.tensor([[2.0, -1.0], [0.0, 0.0]])).tolist() == [2.5, 0.0]


def test_movement_tells_growing_from_shrinking_weights() -> None:
    weights = torch.tensor([0.1, -0.1, 2.0, -2.0], dtype=torch.float64)
    target = torch.tensor([1.0, -1.0, 1.5, -1.5], dtype=torch.float64)
    scores = torch.zeros(4, dtype=torch.float64)
    for _ in range(20):
        gradient = weights - target
        scores += Movement()((weights * gradient).unsqueeze(1))
        weights = weights - 0.05 * gradient
    assert (scores[:2] > 0).all()
    assert (scores[2:] < 0).all()
    assert Movement()(torch.tensor([[0.5, -0.2], [-1.0, 0.25]])).tolist() == pytest.approx([-0.3, 0.75])


def test_batch_norm_scale_is_the_mean_absolute_scale() -> None:
    scales = torch.tensor([[-0.5, 0.25], [0.1, 0.1], [0.0, 0.0]])
    torch.testing.assert_close(BatchNormScale()(scales), torch.tensor([0.375, 0.1, 0.0]))


def test_apoz_worked_by_hand() -> None:
    first, second = torch.ones(16), torch.ones(16)
    first[:5], second[3:9] = 0, 0
    assert APoZ()(torch.stack([torch.cat([first, second]), torch.zeros(32)])).tolist() == [1 - 11 / 32, 0]
    assert APoZ()(torch.tensor([[0.0, 0, 1, 2, 0, 3, 0, -0.0]])).tolist() == [1 - 0.625]


def test_mean_activation() -> None:
    np.testing.assert_allclose(MeanActivation()(units()).numpy(), np.abs(units().numpy()).mean(axis=1), rtol=1e-12)


def test_lamp_is_its_definition() -> None:
    weights = units()
    weights[[3, 7]] = 0
    weights[11] = weights[5]
    norms = np.linalg.norm(weights.numpy(), axis=1)
    order = sorted(range(24), key=lambda u: (norms[u], u))
    squares = [norms[u] ** 2 for u in order]
    expected = {u: squares[place] / sum(squares[place:]) for place, u in enumerate(order)}
    scores = LAMP()(weights)
    np.testing.assert_allclose(scores.numpy(), [expected[u] for u in range(24)], rtol=1e-6)
    assert scores[3] == scores[7] == 0
    assert scores[5] < scores[11]


def test_lamp_keeps_the_largest_of_each_layer_and_the_order_of_a_large_one() -> None:
    large = 1e-3 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    scores = LAMP()(large)
    assert scores.dtype == torch.float32
    assert scores.max() == 1
    assert (scores[large.abs().view(-1).argsort(stable=True)].diff() >= 0).all()
    assert LAMP()(torch.zeros(3, 2)).tolist() == [0, 0, 0]


def test_random_follows_from_seed_and_weights_alone() -> None:
    state = torch.get_rng_state()
    scores = Random()(units())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert torch.equal(Random()(units().clone()), scores)
    assert torch.equal(Random()(units().t().contiguous().t()), scores)
    others = [Random(seed=1)(units()), Random()(units(seed=1)), Random()(units().flip(0))]
    for one in [*others, Random()(units().bfloat16())]:
        assert len(set(one.tolist()) & set(scores.tolist())) == 0


def test_random_is_uniform_and_blind_to_size() -> None:
    weights = torch.arange(10_000.0).unsqueeze(1)
    scores = Random()(weights)
    assert float(scores.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(scores.var()) == pytest.approx(1 / 12, abs=0.004)
    assert abs(float(torch.corrcoef(torch.stack([scores, weights.view(-1)]))[0, 1])) < 0.04


@pytest.mark.parametrize(("by", "sizes"), [("mean", (0.5, 1.5)), ("l2", (0.1**0.5, 0.9**0.5))])
def test_normalized_layers_of_all_scales_are_equal(by: str, sizes: tuple[float, ...]) -> None:
    layer = torch.tensor([[3.0, 4.0], [9.0, -12.0]])
    criterion = Normalized(by=by)  # type: ignore[arg-type]
    torch.testing.assert_close(criterion(layer), torch.tensor(sizes))
    torch.testing.assert_close(criterion(1e-3 * layer), criterion(layer))
    assert criterion(torch.zeros(2, 2)).tolist() == [0, 0]
    assert not torch.allclose(Normalized(GeometricMedian())(layer), criterion(layer))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Magnitude(0), "norm order p"),
        (lambda: Mix(share=1), "share"),
        (lambda: Normalized(by="max"), "expected by to be one of mean, l2, got 'max'"),  # type: ignore[arg-type]
        (lambda: Normalized(Taylor()), "expected a criterion of the weights to normalize, got Taylor"),
        (lambda: Normalized(BatchNormScale()), "got BatchNormScale"),
        (lambda: Normalized(APoZ()), "got APoZ"),
    ],
)
def test_bad_values_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 1), (500, 1), (300, 4)])
def test_geometric_median_of_many_units_is_that_of_all_pairs(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_prune.pruning.criteria.geometric_median.PAIRS", 1000)
    units = torch.randn(count, size, generator=torch.Generator().manual_seed(0))
    pairs = (units.double()[:, None] - units.double()[None]).norm(dim=2).sum(dim=1)
    torch.testing.assert_close(GeometricMedian()(units).double(), pairs, rtol=1e-5, atol=1e-5)
