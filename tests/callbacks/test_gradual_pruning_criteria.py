"""Criteria that look at gradients, curvature and activations while a model trains."""

import copy
from typing import Any

import pytest
import torch
from gradual_net import Net, Record, data, fitted
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor
from torch.nn import functional as F

from lightning_prune import GradualPruning
from lightning_prune.errors import InputError
from lightning_prune.pruning.criteria.apoz import APoZ
from lightning_prune.pruning.criteria.gate_taylor import GateTaylor
from lightning_prune.pruning.criteria.movement import Movement
from lightning_prune.pruning.criteria.optimal_brain_damage import OptimalBrainDamage
from lightning_prune.pruning.criteria.taylor import Taylor
from lightning_prune.pruning.gradient_scores import second_order
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.schedules.cubic import Cubic
from lightning_prune.pruning.schedules.one_shot import OneShot


class Watch(Callback):
    """Keep weight times gradient of every step."""

    def __init__(self) -> None:
        self.products: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.products.append({n: (p * p.grad).detach() for n, p in pl_module.named_parameters() if p.grad is not None})


def test_taylor_averages_the_last_steps_and_remembers() -> None:
    watch, record = Watch(), Record()
    fitted(
        GradualPruning(0.5, criterion=Taylor(), begin=4, end=8, every=4, gather=3, schedule=Cubic(exponent=1)),
        watch,
        record,
        max_epochs=1,
    )
    squares = [products["last.weight"].square() for products in watch.products]
    scores = torch.stack(squares[5:8]).mean(0) + 0.9 * torch.stack(squares[1:4]).mean(0)
    gone = scores.reshape(-1).argsort(stable=True)[: 12 * 16 * 9 // 2]
    wanted = torch.zeros(12 * 16 * 9, dtype=torch.bool)
    wanted[gone] = True
    assert torch.equal(record.weights[7]["last.weight"].reshape(-1) == 0, wanted)


def test_movement_sums_up_the_whole_run() -> None:
    watch, record = Watch(), Record()
    fitted(GradualPruning(0.5, criterion=Movement(), begin=6, end=6, gather=2), watch, record, max_epochs=1)
    scores = -torch.stack([products["last.weight"] for products in watch.products[:6]]).sum(0).reshape(-1)
    wanted = torch.zeros(len(scores), dtype=torch.bool)
    wanted[scores.argsort(stable=True)[: len(scores) // 2]] = True
    assert torch.equal(record.weights[5]["last.weight"].reshape(-1) == 0, wanted)


def test_the_gate_form_reads_the_norm_where_there_is_one() -> None:
    watch, record = Watch(), Record()
    callback = GradualPruning(
        0.5, granularity=Channel(), criterion=GateTaylor(), begin=2, end=2, gather=1, skip=(), schedule=OneShot()
    )
    fitted(callback, watch, record, max_epochs=1)
    products = watch.products[1]
    with_norm = (products["norm.weight"] + products["norm.bias"]).square()
    without = (products["last.weight"].sum((1, 2, 3)) + products["last.bias"]).square()
    for scores, name in ((with_norm, "stem.weight"), (without, "last.weight")):
        gone = (record.weights[1][name] == 0).all(dim=(1, 2, 3))
        assert set(gone.nonzero().reshape(-1).tolist()) == set(scores.argsort()[: len(scores) // 2].tolist())


def test_activations_are_those_behind_the_activation_function_in_eval_mode() -> None:
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.middle.bias += torch.linspace(-0.5, 0.5, 16)
    batches = [batch for batch, _ in data()]
    record = Record()
    callback = GradualPruning(
        0.5, granularity=Channel(), criterion=APoZ(), begin=1, end=0.1, gather=1, skip=(), example_input=batches[0]
    )
    untouched = copy.deepcopy(module).eval()
    quiet_trainer(callback, record, max_epochs=1).fit(module, data())
    with torch.no_grad():
        maps = F.relu(untouched.middle(F.relu(untouched.norm(untouched.stem(batches[0])))))
    active = (maps != 0).double().mean((0, 2, 3))
    gone = (record.weights[0]["middle.weight"] == 0).all(dim=(1, 2, 3))
    assert set(gone.nonzero().reshape(-1).tolist()) == set(active.argsort(stable=True)[:8].tolist())


def test_curvature_of_a_separable_loss_is_exact() -> None:
    weights = {"w": torch.tensor([1.0, -2.0, 0.5], requires_grad=True), "unused": torch.ones(2, requires_grad=True)}
    diagonal = torch.tensor([2.0, 0.5, 8.0])
    loss = 0.5 * (diagonal * weights["w"].square()).sum()
    found = second_order(loss, weights, seed=0)
    assert found["w"].tolist() == [2.0, 2.0, 2.0]
    assert found["unused"].tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="differentiated twice"):
        second_order(torch.tensor(1.0), weights, seed=0)


def test_curvature_is_unbiased() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, requires_grad=True, dtype=torch.float64)
    matrix = torch.randn(6, 6, dtype=torch.float64)
    matrix = matrix @ matrix.T
    loss = 0.5 * weight @ matrix @ weight
    mean = torch.stack([second_order(loss, {"w": weight}, seed)["w"] for seed in range(2000)]).mean(0)
    exact = matrix.diagonal() * weight.detach() ** 2
    assert (mean - exact).abs().max() < 0.1 * exact.max()


def test_optimal_brain_damage_trains_and_leaves_the_loss_alone() -> None:
    callback = GradualPruning(0.5, criterion=OptimalBrainDamage(), begin=4, end=8, every=2, gather=2)
    module = fitted(callback)
    assert "training_step" not in vars(module)
    assert (module.last.weight == 0).sum() == 12 * 16 * 9 // 2
    plain = fitted(GradualPruning(0.5, begin=19, end=19))
    unused = fitted(GradualPruning(0.5, criterion=OptimalBrainDamage(), begin=19, end=19))
    assert torch.equal(plain.stem.bias, unused.stem.bias)  # looking at the curvature changes nothing
