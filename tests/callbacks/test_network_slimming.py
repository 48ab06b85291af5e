"""What a user of NetworkSlimming relies on, against the papers' formulas worked by hand."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import slim
from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.callbacks.network_slimming import NetworkSlimming
from lightning_prune.errors import InputError

WIDTHS = {"one": 20, "two": 12, "plain": 6}
BATCHES = 6


class Foreign(LightningModule):
    """Two convolutions with batch norm that compete, one that a sum keeps, one without batch norm."""

    def __init__(self, lr: float = 0.05, momentum: float = 0.9) -> None:
        super().__init__()
        self.lr, self.momentum = lr, momentum
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(8)
        self.one = nn.Conv2d(8, 20, 3, padding=1)
        self.one_norm = nn.BatchNorm2d(20)
        self.back = nn.Conv2d(20, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 12, 3, stride=2)
        self.two_norm = nn.BatchNorm2d(12)
        self.plain = nn.Conv2d(12, 6, 1)
        self.out = nn.Linear(6, 4)
        self.double()
        generator = torch.Generator().manual_seed(5)
        for norm in (self.one_norm, self.two_norm):
            norm.weight.data = torch.randn(norm.weight.shape, generator=generator).double()
            norm.bias.data = torch.rand(norm.bias.shape, generator=generator).double()

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(image)))
        x = F.relu(x + self.back(F.relu(self.one_norm(self.one(x)))))
        x = F.relu(self.plain(F.relu(self.two_norm(self.two(x)))))
        logits: Tensor = self.out(x.mean(dim=(2, 3)))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=1e-3)


class Pulled(LightningModule):
    """The gradient of the scales is the same at every step."""

    pull = torch.tensor([0.2, -0.3, 0.8, 1.2], dtype=torch.float64)

    def __init__(self, optimizer: type[Optimizer], manual: bool = False, **options: Any) -> None:
        super().__init__()
        self.optimizer, self.options, self.automatic_optimization = optimizer, options, not manual
        self.conv, self.norm, self.out = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        self.double().norm.weight.data = torch.tensor([0.5, 0.05, 0.0, 0.0], dtype=torch.float64)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.out(F.relu(self.norm(self.conv(image))))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        loss = (self.pull * self.norm.weight).sum() + 0 * self(batch[0]).sum()
        if self.automatic_optimization:
            return loss
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return None

    def configure_optimizers(self) -> Optimizer:
        return self.optimizer(self.parameters(), lr=0.1, **self.options)


class Gradients(Callback):
    """Record scales and their gradients before every optimizer step, without the optimizer's weight decay."""

    def __init__(self) -> None:
        self.steps: list[dict[str, tuple[Tensor, Tensor]]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        norms = {name: module for name, module in pl_module.named_modules() if isinstance(module, nn.BatchNorm2d)}
        self.steps.append(
            {name: (norm.weight.detach().clone(), norm.weight.grad.clone()) for name, norm in norms.items()}
        )


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(BATCHES * 4, 3, 8, 8, generator=generator).double()
    return DataLoader(TensorDataset(images, torch.randint(4, (len(images),), generator=generator)), batch_size=4)


def fit(module: LightningModule, *callbacks: Callback, resume: Path | None = None, **options: Any) -> Trainer:
    trainer = quiet_trainer(*callbacks, **options)
    trainer.fit(module, loader(), ckpt_path=resume, weights_only=True)
    return trainer


def seeded(**options: Any) -> Foreign:
    torch.manual_seed(0)
    return Foreign(**options)


def zeros(module: nn.Module, name: str) -> set[int]:
    return set((module.get_submodule(name).weight.flatten(1) == 0).all(dim=1).nonzero().reshape(-1).tolist())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_penalty_adds_its_sign_to_the_gradients_of_the_scales_that_compete(accumulate: int) -> None:
    module, with_penalty, without = seeded(lr=0.0), Gradients(), Gradients()
    module.one_norm.weight.data[3] = 0
    other = copy.deepcopy(module)
    options = {"accumulate_grad_batches": accumulate, "max_epochs": 1}
    fit(module, NetworkSlimming(0.5, strength=0.3, prune_at=1.0), with_penalty, **options)
    fit(other, without, **options)
    assert len(with_penalty.steps) == BATCHES // accumulate
    for steps in zip(with_penalty.steps, without.steps, strict=True):
        added = {name: steps[0][name][1] - steps[1][name][1] for name in steps[0]}
        for name in ("one_norm", "two_norm"):
            scale = steps[0][name][0]
            expected = 0.3 * torch.where(scale > 0, 1.0, -1.0).double()
            expected[scale == 0] = 0
            torch.testing.assert_close(added[name], expected, rtol=0, atol=1e-12)
        assert not added["stem_norm"].any()
    assert (with_penalty.steps[0]["one_norm"][0] == 0).sum() == 1


def test_coupled_streams_have_their_scales_penalized_too() -> None:
    module, with_penalty, without = seeded(lr=0.0), Gradients(), Gradients()
    other = copy.deepcopy(module)
    fit(module, NetworkSlimming(0.5, strength=0.3, prune_at=1.0, residual="coupled"), with_penalty, max_steps=1)
    fit(other, without, max_steps=1)
    added = with_penalty.steps[0]["stem_norm"][1] - without.steps[0]["stem_norm"][1]
    torch.testing.assert_close(added, torch.full((8,), 0.3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_penalty_ends_with_the_pruning() -> None:
    module, watch = seeded(lr=0.0), Gradients()
    fit(module, NetworkSlimming(0.5, strength=0.3, prune_at=3), watch, max_epochs=1)
    other, without = seeded(lr=0.0), Gradients()
    fit(other, NetworkSlimming(0.5, strength=0.0, prune_at=3), without, max_epochs=1)
    same = [
        torch.allclose(steps[0]["two_norm"][1], steps[1]["two_norm"][1], rtol=0, atol=1e-12)
        for steps in zip(watch.steps, without.steps, strict=True)
    ]
    assert same == [False] * 3 + [True] * 3


OPTIMIZERS = [
    (SGD, {}),
    (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (Adam, {"weight_decay": 0.1}),
]


@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
@pytest.mark.parametrize("manual", [False, True])
def test_ista_steps_are_those_worked_by_hand(optimizer: type[Optimizer], options: Any, manual: bool) -> None:
    watch = Gradients()
    fit(Pulled(optimizer, manual, **options), NetworkSlimming(0.5, strength=1.0, prune_at=1.0, ista=True), watch)
    first, second = (step["norm"][0] for step in watch.steps[1:3])
    assert first.tolist() == pytest.approx([0.38, 0.0, 0.0, -0.02])
    assert second.tolist() == pytest.approx([0.26, 0.0, 0.0, -0.04])
    assert first[1] == second[1] == 0


def test_ista_moves_a_negative_scale_towards_zero() -> None:
    module, watch = Pulled(SGD), Gradients()
    module.norm.weight.data[0], module.pull = -0.3, torch.full((4,), 0.5, dtype=torch.float64)
    fit(module, NetworkSlimming(0.5, strength=0.4, prune_at=1.0, ista=True), watch)
    assert float(watch.steps[1]["norm"][0][0]) == pytest.approx(-0.31)


def test_ista_takes_one_step_for_accumulated_batches() -> None:
    watch, slimming = Gradients(), NetworkSlimming(0.5, strength=1.0, prune_at=1.0, ista=True)
    fit(Pulled(SGD, momentum=0.9), slimming, watch, accumulate_grad_batches=2)
    assert len(watch.steps) == BATCHES
    assert watch.steps[1]["norm"][0].tolist() == pytest.approx([0.38, 0.0, 0.0, -0.02])


def test_without_sparsity_training_is_as_it_was() -> None:
    module, other = seeded(), seeded()
    fit(module, NetworkSlimming(0.0, strength=1.0))
    fit(other)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_ista_takes_the_rate_of_the_group_and_leaves_every_other_tensor_to_the_optimizer() -> None:
    class Grouped(Foreign):
        def configure_optimizers(self) -> Optimizer:
            scales = [self.one_norm.weight, self.two_norm.weight]
            rest = [p for p in self.parameters() if all(p is not scale for scale in scales)]
            groups = [{"params": scales, "lr": 0.2}, {"params": rest}]
            return SGD(groups, lr=0.05, momentum=0.9, weight_decay=1e-3)

    torch.manual_seed(0)
    module, watch = Grouped(), Gradients()
    other = copy.deepcopy(module)
    fit(module, NetworkSlimming(0.5, strength=0.4, prune_at=1.0, ista=True), watch, max_steps=2, max_epochs=1)
    fit(other, max_steps=1)
    before, gradient = watch.steps[0]["two_norm"]
    moved = before - 0.2 * gradient
    expected = torch.sign(moved) * (moved.abs() - 0.2 * 0.4).clamp(min=0)
    torch.testing.assert_close(watch.steps[1]["two_norm"][0], expected, rtol=0, atol=1e-12)
    assert torch.equal(watch.steps[1]["stem_norm"][0], other.stem_norm.weight.detach())


def test_after_pruning_the_optimizer_has_the_scales_back() -> None:
    module, other = seeded(), seeded()
    fit(module, NetworkSlimming(0.5, prune_at=0, ista=True))
    fit(other, NetworkSlimming(0.5, prune_at=0, strength=0.0))
    assert module.one_norm.weight.any()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("ista", [False, True])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_the_smallest_scales_of_all_layers_go_and_slim_removes_them(ista: bool, sparsity: float) -> None:
    module = seeded()
    at_prune: dict[str, Tensor] = {}

    class Before(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            if trainer.global_step == 8:
                at_prune.update({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    slimming = NetworkSlimming(sparsity, strength=0.01, prune_at=8, ista=ista)
    fit(module, Before(), slimming)
    ranked = sorted(
        (abs(float(scale)), layer, j)
        for layer in ("one", "two")
        for j, scale in enumerate(at_prune[f"{layer}_norm.weight"])
    )
    gone = {(layer, j) for _, layer, j in ranked[: round(32 * sparsity)]}
    assert {(layer, j) for layer in WIDTHS for j in zeros(module, layer)} == gone
    for layer, j in gone:
        norm, conv = module.get_submodule(f"{layer}_norm"), module.get_submodule(layer)
        assert norm.weight[j] == norm.bias[j] == conv.bias[j] == 0
    kept = [j for j in range(20) if ("one", j) not in gone]
    assert module.one.weight[kept].any(dim=(1, 2, 3)).all() if kept else True
    assert not torch.equal(module.one.weight[kept], at_prune["one.weight"][kept])
    image = loader().dataset[:4][0]
    small = slim(module, image)
    assert small.one.out_channels + small.two.out_channels == 32 - round(32 * sparsity)
    torch.testing.assert_close(small.eval()(image), module.eval()(image), rtol=0, atol=1e-6)
    assert slimming.is_final
    assert slimming.final_epoch == pytest.approx(8 / BATCHES)


def test_every_layer_keeps_the_floor() -> None:
    module = seeded(lr=0.0)
    module.two_norm.weight.data *= 1e-6
    fit(copy.deepcopy(module), slimming := NetworkSlimming(0.5, prune_at=0), max_steps=1)
    masks = slimming.masks
    assert masks is not None
    assert [int(masks[f"{name}_norm.weight"].sum()) for name in ("one", "two")] == [15, 1]
    fit(module, slimming := NetworkSlimming(0.5, prune_at=0, floor=0.25), max_steps=1)
    masks = slimming.masks
    assert masks is not None
    assert [int(masks[f"{name}_norm.weight"].sum()) for name in ("one", "two")] == [13, 3]


def test_layers_of_a_pattern_compete_and_the_others_stay_as_they_are() -> None:
    module, watch = seeded(lr=0.0), Gradients()
    fit(module, NetworkSlimming({"one": 0.5}, strength=0.3, prune_at=0.5), watch, max_steps=2)
    assert (len(zeros(module, "one")), len(zeros(module, "two"))) == (10, 0)
    first, second = (step["two_norm"][1] for step in watch.steps)
    other, without = seeded(lr=0.0), Gradients()
    fit(other, without, max_steps=1)
    assert torch.equal(first, without.steps[0]["two_norm"][1])
    assert not torch.equal(first, second)


def test_frozen_scales_stay() -> None:
    module = seeded()
    module.two_norm.weight.requires_grad_(False)
    before = module.two_norm.weight.clone()
    fit(module, NetworkSlimming(0.5, prune_at=0))
    assert (len(zeros(module, "one")), len(zeros(module, "two"))) == (10, 0)
    assert torch.equal(module.two_norm.weight, before)


@pytest.mark.parametrize("ista", [False, True])
@pytest.mark.parametrize("stop", [4, 7, 9])
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_run_resumed_in_mid_epoch_ends_with_the_same_bits(ista: bool, stop: int, tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        slimming = NetworkSlimming(0.5, strength=0.02, prune_at=7, ista=ista)
        return [slimming, ExactResume(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)]

    whole = seeded()
    fit(whole, *callbacks())
    module = seeded()
    fit(module, *callbacks(), resume=tmp_path / f"step={stop}.ckpt")
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in whole.state_dict().items())
    assert len(zeros(module, "one")) + len(zeros(module, "two")) == 16


def test_how_small_the_scales_are_is_logged() -> None:
    module = seeded(lr=0.0)
    trainer = fit(module, NetworkSlimming(0.5, strength=0.02, prune_at=1.0), max_epochs=1)
    scales = torch.cat([module.one_norm.weight, module.two_norm.weight]).detach()
    logged = trainer.callback_metrics
    assert float(logged["slimming/mean_scale"]) == pytest.approx(float(scales.abs().mean()))
    assert float(logged["slimming/small_scales"]) == pytest.approx(float((scales.abs() < 0.01).sum()) / 32)
    assert (scales == 0).sum() == 16


def test_the_module_is_left_as_it_was() -> None:
    class Fault(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            raise RuntimeError("stop")

    for callbacks in ([], [Fault()]):
        for ista in (False, True):
            module = seeded()
            try:
                trainer = fit(module, NetworkSlimming(0.5, ista=ista), *callbacks, max_epochs=1)
            except RuntimeError:
                assert callbacks
            else:
                assert not trainer.optimizers[0]._optimizer_step_pre_hooks
                assert not trainer.optimizers[0]._optimizer_step_post_hooks
            assert "training_step" not in vars(module)


def test_a_run_that_ends_before_says_so() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            trainer.should_stop = True

    with pytest.warns(UserWarning, match="after 1 optimizer steps, before the last choice of what to prune, at step 6"):
        fit(seeded(), slimming := NetworkSlimming(0.5), Stop())
    assert not slimming.is_final


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1}, r"expected strength in \[0, inf\), got -1"),
        ({"strength": float("nan")}, r"expected strength in \[0, inf\), got nan"),
        ({"sparsity": 1.0}, r"expected sparsity in \[0, 1\), got 1.0"),
        ({"floor": 1.5}, r"expected floor in \[0, 1\), got 1.5"),
        ({"prune_at": 1.5}, "expected prune_at in optimizer steps"),
        ({"residual": "tied"}, "expected residual to be one of coupled, inner, independent, got 'tied'"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkSlimming(**({"sparsity": 0.5} | options))


class NoNorms(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.one_norm, self.two_norm = nn.BatchNorm2d(20, affine=False).double(), nn.Identity()  # type: ignore[assignment]


class Manual(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (Foreign, {"prune_at": 13}, "expected prune_at within the 12 optimizer steps of this run, got 13"),
        (Foreign, {"sparsity": 0.8, "floor": 0.5}, "expected sparsity of at most 0.5000, .* got 0.8000; lower"),
        (Foreign, {"sparsity": {"three": 0.5}}, r"expected sparsity\[three\] to match a prunable layer"),
        (NoNorms, {}, "expected a model with batch norms behind convolutions, .* found none .*; use another strategy"),
        (Manual, {}, "expected a module with automatic optimization, got Manual"),
    ],
)
def test_what_cannot_work_is_refused_before_training(cls: type[Foreign], options: dict[str, Any], message: str) -> None:
    module = cls()
    module.example_input_array = loader().dataset[:2][0]
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(InputError, match=message) as refused:
        fit(module, NetworkSlimming(**({"sparsity": 0.5} | options)))
    assert "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
