"""What a user of Regularization relies on, compared with formulas worked by hand and with the optimizer's own decay."""

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.callbacks.regularization import Regularization
from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.block import Block
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.penalties import group_lasso, l2


class Foreign(LightningModule):
    """Every kind of parameter, trained in float64; `free` leaves only the penalty in the gradient."""

    def __init__(self, decay: float = 0.0, free: bool = False) -> None:
        super().__init__()
        self.decay = decay
        self.factor = 0.0 if free else 1.0
        self.embedding = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.frozen = nn.Conv2d(6, 6, 1).requires_grad_(False)
        self.fc = nn.Linear(6 * 16, 3)
        self.double()

    def forward(self, tokens: Tensor) -> Tensor:
        image = self.embedding(tokens)[:, None]
        x = self.frozen(F.relu(self.norm(self.conv(image))))
        logits: Tensor = self.fc(x.flatten(1))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.factor * F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decayed, rest = [], []
        for name, parameter in self.named_parameters():
            (decayed if name in ("conv.weight", "fc.weight") else rest).append(parameter)
        groups = [{"params": decayed, "weight_decay": self.decay}, {"params": rest}]
        return torch.optim.SGD(groups, lr=0.05, momentum=0.9)


class ByHand(Foreign):
    """The penalty written into the step."""

    def __init__(self, penalty: Callable[[Foreign], Tensor]) -> None:
        super().__init__()
        self.penalty = penalty

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) + self.penalty(self)


def loader() -> DataLoader:
    tokens = torch.randint(7, (32, 4), generator=torch.Generator().manual_seed(3))
    return DataLoader(TensorDataset(tokens, tokens.sum(dim=1) % 3), batch_size=8)


def fit(module: LightningModule, *callbacks: Callback, epochs: int = 2, **options: Any) -> Trainer:
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, **options)
    trainer.fit(module, loader())
    return trainer


def seeded(cls: type[Foreign] = Foreign, *arguments: Any, **options: Any) -> Foreign:
    torch.manual_seed(0)
    return cls(*arguments, **options)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(dict(one.state_dict()), dict(other.state_dict()), rtol=0, atol=1e-12)


def filters(module: Foreign) -> Tensor:
    weights = (module.conv.weight, module.fc.weight)
    return 0.02 * sum(w.square().flatten(1).sum(dim=1).sqrt().sum() for w in weights)  # type: ignore[return-value]


def inputs(module: Foreign) -> Tensor:
    conv, fc = module.conv.weight, module.fc.weight
    return 0.02 * (conv.square().sum().sqrt() + sum(fc[:, j].norm() for j in range(fc.shape[1])))


def entries(module: Foreign) -> Tensor:
    return 0.002 * (module.conv.weight.abs().sum() + module.fc.weight.abs().sum())


def squares(module: Foreign) -> Tensor:
    return 0.01 * (module.conv.weight.square().sum() + module.fc.weight.square().sum())


def blocks(module: Foreign) -> Tensor:
    fc = module.fc.weight  # the convolution has one input channel, which no two rows of two columns fill
    return 0.02 * sum(fc[:, j : j + 2].square().sum().sqrt() for j in range(0, fc.shape[1], 2))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("callback", "penalty"),
    [
        (Regularization(0.02), filters),
        (Regularization(0.02, granularity=Channel(dim=1)), inputs),
        (Regularization(0.002, granularity=Element()), entries),
        (Regularization(0.02, granularity=Block(3, 2)), blocks),
        (Regularization(0.02, penalty=l2), squares),
    ],
    ids=["filters", "inputs", "L1", "blocks", "L2"],
)
def test_training_is_that_with_the_formula_in_the_loss(
    callback: Regularization, penalty: Callable[[Foreign], Tensor]
) -> None:
    module, reference, without = seeded(), seeded(ByHand, penalty), seeded()
    trainer = fit(module, callback)
    fit(reference)
    fit(without)
    assert_same(module, reference)
    assert not torch.allclose(module.fc.weight, without.fc.weight, rtol=0, atol=1e-4)
    assert float(trainer.callback_metrics["train/penalty"]) == pytest.approx(penalty(module).detach().item())


def test_l2_is_the_weight_decay_of_sgd() -> None:
    module, reference = seeded(), seeded(decay=0.3)
    fit(module, Regularization(0.3, penalty=l2))
    fit(reference)
    assert_same(module, reference)


def test_group_lasso_of_hand_worked_units() -> None:
    units = torch.tensor([[3.0, 4.0], [0.0, 0.0], [5.0, -12.0]], dtype=torch.float64, requires_grad=True)
    value = group_lasso(units)
    assert value.detach() == 18
    (gradient,) = torch.autograd.grad(value, units)
    expected = torch.tensor([[3 / 5, 4 / 5], [0, 0], [5 / 13, -12 / 13]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("weight", [0.0, 1e-45, -1e-30, 1e-20, -2.0])
def test_the_gradient_of_single_weights_is_their_sign_however_small_they_are(weight: float) -> None:
    units = torch.full((4, 1), weight, requires_grad=True)
    (gradient,) = torch.autograd.grad(group_lasso(units), units)
    assert torch.equal(gradient, units.detach().sign())


def test_group_lasso_finds_the_inputs_that_do_not_matter() -> None:
    class Linear(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.mse_loss(self.fc(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.05)

    inputs = torch.randn(256, 6)
    targets = inputs[:, :2] @ torch.randn(2, 4) + 0.3 * torch.randn(256, 4)
    module = Linear()
    trainer = quiet_trainer(Regularization(0.1, granularity=Channel(dim=1)), max_epochs=40)
    trainer.fit(module, DataLoader(TensorDataset(inputs, targets), batch_size=64))
    norms = module.fc.weight.detach().norm(dim=0)
    assert norms[:2].min() > 0.3
    assert norms[2:].max() < 0.01


def test_only_trained_weights_of_layers_that_can_be_cut_are_penalized(caplog: pytest.LogCaptureFixture) -> None:
    module = seeded(free=True)
    before = copy.deepcopy(dict(module.named_parameters()))
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        fit(module, Regularization(0.01, granularity=Kernel()), epochs=3)
    moved = [name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == ["conv.weight"]
    told = [record.getMessage() for record in caplog.records if "leaves out" in record.getMessage()]
    assert len(told) == 1
    assert told[0].endswith("cannot cut: fc.weight")


def test_strengths_by_pattern() -> None:
    module, reference = seeded(), seeded(ByHand, lambda m: 0.02 * m.conv.weight.flatten(1).norm(dim=1).sum())
    fit(module, Regularization({"c*v": 0.02, "conv": 5.0, "fc": 0}))
    fit(reference)
    assert_same(module, reference)
    module = seeded(free=True)
    before = module.fc.weight.detach().clone()
    fit(module, Regularization({"conv": 0.1}))
    assert torch.equal(module.fc.weight, before)


def test_strength_zero_is_plain_training() -> None:
    module, reference = seeded(), seeded()
    assert "train/penalty" not in fit(module, Regularization(0)).callback_metrics
    fit(reference)
    assert_same(module, reference)


def test_penalties_of_several_callbacks_add_up_in_loss_and_log() -> None:
    module, reference = seeded(), seeded(ByHand, lambda m: filters(m) + entries(m))
    trainer = fit(module, Regularization(0.02), Regularization(0.002, granularity=Element()))
    fit(reference)
    assert_same(module, reference)
    expected = (filters(module) + entries(module)).detach().item()
    assert float(trainer.callback_metrics["train/penalty"]) == pytest.approx(expected)


def test_a_function_of_the_users_own() -> None:
    def hoyer(units: Tensor) -> Tensor:
        return units.abs().sum().square() / units.square().sum()

    module, reference = seeded(), seeded(ByHand, lambda m: 0.01 * (hoyer(m.conv.weight) + hoyer(m.fc.weight)))
    fit(module, Regularization(0.01, penalty=hoyer))
    fit(reference)
    assert_same(module, reference)


def test_the_stored_weight_under_a_parametrization_is_penalized() -> None:
    class Half(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2

    module = seeded(free=True)
    parametrize.register_parametrization(module.fc, "weight", Half())
    trainer = fit(module, Regularization({"fc": 0.1}, granularity=Element()), epochs=1)
    stored = module.fc.parametrizations.weight.original  # type: ignore[union-attr]
    assert float(trainer.callback_metrics["train/penalty"]) == pytest.approx(0.1 * stored.detach().abs().sum().item())


def test_sums_of_bfloat16_weights_are_those_of_float32() -> None:
    module = seeded()
    trainer = fit(module, Regularization(1.0, granularity=Element()), precision="bf16-true", epochs=1)
    assert module.fc.weight.dtype == torch.bfloat16
    expected = sum(w.detach().double().abs().sum().item() for w in (module.conv.weight, module.fc.weight))
    assert float(trainer.callback_metrics["train/penalty"]) == pytest.approx(expected, rel=1e-5)


def test_the_module_is_left_alone_after_the_fit_and_the_callback_can_be_used_again() -> None:
    callback = Regularization(0.02)
    first, second, once = seeded(), seeded(), seeded()
    fit(first, callback)
    fit(second, callback)
    fit(once, Regularization(0.02))
    assert_same(second, once)
    assert "training_step" not in vars(first)
    assert "training_step" not in vars(second)
    state = copy.deepcopy(first.state_dict())
    fit(first)
    reference = seeded()
    reference.load_state_dict(state)
    fit(reference)
    assert_same(first, reference)


def test_an_interrupted_fit_leaves_the_module_alone() -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            raise KeyboardInterrupt

    module = seeded()
    with pytest.raises(SystemExit):
        fit(module, Regularization(0.02), Interrupt())
    assert "training_step" not in vars(module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regularization(-1e-4), "expected strength in [0, inf), got -0.0001"),
        (lambda: Regularization(float("nan")), "expected strength in [0, inf), got nan"),
        (lambda: Regularization(float("inf")), "expected strength in [0, inf), got inf"),
        (lambda: Regularization("1e-4"), "expected strength in [0, inf), got '1e-4'"),  # type: ignore[arg-type]
        (lambda: Regularization(True), "expected strength in [0, inf), got True"),
        (lambda: Regularization({"fc": -1}), "expected strength[fc] in [0, inf), got -1"),
        (lambda: Regularization({}), "expected strength to name at least one layer pattern, got none"),
        (
            lambda: Regularization(1e-4, penalty="l1"),  # type: ignore[arg-type]
            "expected penalty to be a function of (units) such as group_lasso, got 'l1'",
        ),
        (
            lambda: Regularization(1e-4, granularity="element"),  # type: ignore[arg-type]
            "expected granularity to be a Granularity such as Channel(), got 'element'; write: from "
            "lightning_prune.pruning.granularities.element import Element, and pass Element()",
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(make: Callable[[], Regularization], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value) == message


class NoWeights(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)
        self.norm.requires_grad_(True)


@pytest.mark.parametrize(
    ("module", "callback", "message"),
    [
        (
            Foreign,
            Regularization({"conv": 1.0, "layer9.*": 1.0}),
            "expected strength[layer9.*] to match a layer, got no match among conv, fc",
        ),
        (
            Foreign,
            Regularization(1.0, granularity=Block(5, 5)),
            "expected a model with trained weights that Block(rows=5, columns=5) can cut, got none among conv.weight, "
            "fc.weight",
        ),
        (NoWeights, Regularization(1.0, granularity=Element()), "expected a model with trained weights that Element()"),
    ],
)
def test_what_fits_no_layer_is_refused_before_training(
    module: type[Foreign], callback: Regularization, message: str
) -> None:
    built = seeded(module)
    before = copy.deepcopy(built.state_dict())
    with pytest.raises(InputError) as caught:
        fit(built, callback)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    torch.testing.assert_close(dict(built.state_dict()), dict(before), rtol=0, atol=0)


def test_manual_optimization_and_sharded_weights_are_refused() -> None:
    module = seeded()
    module.automatic_optimization = False
    with pytest.raises(InputError, match="expected a module with automatic optimization, got Foreign"):
        fit(module, Regularization(1e-4))

    class Sharded:
        strategy = FSDPStrategy()

    with pytest.raises(InputError, match="keeps whole weights on every device, got FSDPStrategy; use ddp"):
        Regularization(1e-4).on_fit_start(Sharded(), seeded())  # type: ignore[arg-type]
