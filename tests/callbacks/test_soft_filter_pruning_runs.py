"""Soft filter pruning in runs of every kind: short, long, stopped, refused."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from foreign_module import BATCHES, Foreign, Watch, counts, fit, loader, module, zero_filters
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import SoftFilterPruning, SparsityMonitor, slim
from lightning_prune.errors import InputError


def test_resets_every_n_epochs() -> None:
    watch = Watch()
    fit(module(), SoftFilterPruning(0.4, residual="inner", every_n_epochs=3, hard_from=0.8), watch, epochs=9)
    assert [len(zeros["block.0"]) > 0 for zeros in watch.validations] == [False, False, True] * 2 + [True] * 3


def test_prune_before_training() -> None:
    watch, model = Watch(), module()
    start = copy.deepcopy(model)

    class First(Callback):
        seen: ClassVar[list[dict[str, list[int]]]] = []

        def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
            self.seen.append(zero_filters(pl_module))

    first = First()
    fit(model, SoftFilterPruning(0.4, residual="inner", prune_before_training=True), first, watch)
    norms = start.block[0].weight.detach().flatten(1).norm(dim=1)
    assert first.seen[0]["block.0"] == sorted(norms.argsort()[:8].tolist())


def test_paper_behaviour_resets_last_and_warns() -> None:
    model = module()
    with pytest.warns(UserWarning, match="hard_from=None"):
        fit(model, SoftFilterPruning(0.4, hard_from=None))
    assert counts(zero_filters(model)) == [6, 8, 6, 4]
    assert slim(model, torch.randn(2, 3, 8, 8)).block[0].out_channels == 12


def test_run_that_stops_in_its_soft_phase_ends_pruned_and_warns() -> None:
    class StopSoon(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = True

    model = module()
    with pytest.warns(UserWarning, match="soft phase"):
        fit(model, SoftFilterPruning(0.4), StopSoon(), epochs=10)
    assert slim(model, torch.randn(2, 3, 8, 8)).block[0].out_channels == 12


def test_run_of_one_epoch_is_hard_from_the_start() -> None:
    model, watch = module(), Watch()
    with pytest.warns(UserWarning, match="no soft phase"):
        fit(model, SoftFilterPruning(0.4), watch, epochs=1)
    assert [counts(zeros) for zeros in watch.batches] == [[6, 8, 6, 4]] * BATCHES


def test_run_limited_by_steps() -> None:
    model, watch = module(), Watch()
    fit(model, SoftFilterPruning(0.4, hard_from=0.5), watch, epochs=-1, max_steps=4 * BATCHES)
    assert [counts(zeros) for zeros in watch.batches[2 * BATCHES :]] == [[6, 8, 6, 4]] * (2 * BATCHES)


def test_one_callback_can_prune_one_module_after_another() -> None:
    pruner = SoftFilterPruning(0.4)
    first, second = module(), module(seed=1)
    fit(first, pruner)
    fit(second, pruner)
    assert counts(zero_filters(first)) == counts(zero_filters(second)) == [6, 8, 6, 4]
    assert zero_filters(first) != zero_filters(second)


def test_dense_state_is_the_one_before_the_last_reset() -> None:
    watch, pruner = Watch(), SoftFilterPruning(0.4, hard_from=0.5, keep_dense=True)
    fit(module(), watch, pruner)
    assert pruner.dense_state is not None
    assert all(torch.equal(pruner.dense_state[name], tensor) for name, tensor in watch.before_reset[1].items())


@pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
def test_module_that_takes_a_dictionary() -> None:
    class Dictionary(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch["image"], batch["label"]), batch_idx)

    torch.manual_seed(0)
    model = Dictionary()
    data = [{"label": label, "image": image} for image, label in loader().dataset]
    trainer = quiet_trainer(SoftFilterPruning(0.4), limit_val_batches=0)
    trainer.fit(model, DataLoader(data, batch_size=8))  # type: ignore[arg-type]
    assert counts(zero_filters(model)) == [6, 8, 6, 4]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftFilterPruning(1.2), r"expected sparsity in \[0, 1\), got 1.2"),
        (lambda: SoftFilterPruning(-0.1), r"expected sparsity in \[0, 1\), got -0.1"),
        (lambda: SoftFilterPruning(float("nan")), r"expected sparsity in \[0, 1\), got nan"),
        (lambda: SoftFilterPruning("0.4"), r"expected sparsity in \[0, 1\), got '0.4'"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning({"stem": 2.0}), r"expected sparsity\[stem\] in \[0, 1\), got 2.0"),
        (lambda: SoftFilterPruning({}), "at least one layer pattern"),
        (lambda: SoftFilterPruning(0.4, residual="some"), "residual to be one of coupled, inner, independent"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, hard_from=1.0), r"hard_from in \[0, 1\), got 1.0"),
        (lambda: SoftFilterPruning(0.4, every_n_epochs=1.5), "whole number of at least 1, got 1.5"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, hard_from="x"), "hard_from in"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, criterion="magnitude"), "criterion to be a Criterion such as"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, schedule="x"), "schedule to be a function"),  # type: ignore[arg-type]
        (lambda: SoftFilterPruning(0.4, max_regrowth=0), r"max_regrowth in \(0, inf\], got 0"),
        (lambda: SoftFilterPruning(0.4, every_n_epochs=0), "every_n_epochs to be a whole number of at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_with_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pruner", "message"),
    [
        (lambda: SoftFilterPruning({"nothing*": 0.5}), r"sparsity\[nothing\*\] to match a prunable layer"),
        (lambda: SoftFilterPruning({"stem*": 0.5}), "whose layers are all coupled with layers that it does not match"),
        (lambda: SoftFilterPruning(0.4, example_input=torch.randn(2, 1, 8, 8)), "traceable by torch.export"),
        (lambda: SoftFilterPruning(0.4, example_input="images"), "example_input to be a tensor or a tuple"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(pruner: Callable[[], Callback], message: str) -> None:
    model = module()
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message) as caught:
        fit(model, pruner())
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in start.items())


def test_frozen_layers_stay_as_they_are() -> None:
    model = module()
    model.block[0].requires_grad_(False)
    start = model.block[0].weight.clone()
    fit(model, SoftFilterPruning(0.4))
    assert torch.equal(model.block[0].weight, start)
    assert counts(zero_filters(model)) == [6, 0, 6, 4]


def test_forward_with_two_inputs_and_a_monitor_beside() -> None:
    class Two(Foreign):
        def forward(self, image: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(image * scale[:, None, None, None])

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self(*batch[:2]).square().mean()  # type: ignore[no-any-return]

        validation_step = training_step  # type: ignore[assignment]

    torch.manual_seed(0)
    model = Two()
    data = DataLoader(TensorDataset(torch.randn(16, 3, 8, 8), torch.rand(16), torch.zeros(16)), batch_size=8)
    quiet_trainer(SoftFilterPruning(0.4), SparsityMonitor()).fit(model, data, data)
    assert counts(zero_filters(model)) == [6, 8, 6, 4]


def test_module_without_convolutions_is_refused() -> None:
    class Linear(Foreign):
        def __init__(self) -> None:
            LightningModule.__init__(self)
            self.lr = 0.1
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))

        def forward(self, image: Tensor) -> Tensor:
            logits: Tensor = self.net(image)
            return logits

    with pytest.raises(InputError, match="with layers that train and whose channels can be removed, found none"):
        fit(Linear(), SoftFilterPruning(0.4))


def test_endless_run_is_refused() -> None:
    with pytest.raises(InputError, match="expected a run of known length in epochs"):
        fit(module(), SoftFilterPruning(0.4), epochs=-1)


def test_diverged_run_is_stopped() -> None:
    with pytest.raises(InputError, match="diverged"):
        fit(module(lr=1e30), SoftFilterPruning(0.4))


def test_state_of_another_module_is_refused() -> None:
    pruner = SoftFilterPruning(0.4)

    class Load(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            pruner.load_state_dict(
                {"masks": {"other.weight": torch.ones(3, 1, 1, 1).bool()}, "dense_state": None, "limits": {}}
            )

    with pytest.raises(InputError, match=r"other\.weight that does not fit"):
        fit(module(), Load(), pruner)


def test_optimizers_are_left_alone_after_the_run_and_after_an_error() -> None:
    trainer = fit(module(), SoftFilterPruning(0.4))
    assert not trainer.optimizers[0]._optimizer_step_post_hooks

    class Fail(Callback):
        optimizer: Any = None

        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            self.optimizer = trainer.optimizers[0]
            raise RuntimeError("boom")

    fail = Fail()
    with pytest.raises(RuntimeError, match="boom"):
        fit(module(), SoftFilterPruning(0.4), fail)
    assert not fail.optimizer._optimizer_step_post_hooks
