"""What a student learns: the loss by hand, its terms, cached logits."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from quiet_trainer import quiet_trainer
from taught import HINT, SGD, Plain, data, distillation, fit, same, seeded, wide
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset, default_collate

from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.data.digits import digits
from lightning_prune.distillation.adapters import Adapter
from lightning_prune.distillation.losses.attention import Attention
from lightning_prune.distillation.losses.decoupled import Decoupled
from lightning_prune.distillation.losses.hint import Hint
from lightning_prune.distillation.losses.hinton import Hinton
from lightning_prune.distillation.losses.match import Match
from lightning_prune.distillation.losses.similarity import Similarity
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.models.resnet import ResNet


class Called(Plain):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])


class ByHand(Plain):
    """The terms of Hinton and an adapted hint written into the step, with the adapter a part of the module."""

    def __init__(self, optimizer: Callable[..., torch.optim.Optimizer] = SGD) -> None:
        super().__init__(optimizer)
        self.adapter = Adapter(torch.zeros(1, 8), torch.zeros(1, 12), seed=0)
        self.teacher = (wide().eval(),)  # hidden from the optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = self.net[0](batch[0])
        logits = self.net[1:](hidden)
        with torch.no_grad():
            wanted = self.teacher[0][0](batch[0])
            answers = self.teacher[0][1:](wanted)
        own = F.cross_entropy(logits, batch[1])
        added = (0.3 - 1) * own + 0.7 * Hinton()(logits, answers) + 0.5 * Hint()(self.adapter(hidden), wanted)
        return own + 1.0 * added


class Linear(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3, bias=False, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("options", "ramp"),
    [
        ({}, [1.0] * 8),
        ({"warm_up": 4}, [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]),
        ({"warm_up": 0.25, "decay": 0.5}, [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]),
    ],
)
def test_every_step_is_that_of_the_gradient_worked_by_hand(options: dict[str, Any], ramp: list[float]) -> None:
    torch.manual_seed(0)
    module, teacher = Linear(), nn.Linear(5, 3, dtype=torch.float64)
    weight = module.fc.weight.detach().numpy().copy()
    callback = KnowledgeDistillation(teacher, loss=Hinton(temperature=3.0), weight=0.8, task_weight=0.4, **options)
    trainer = fit(module, callback, dtype=torch.float64)
    x, y = (tensor.numpy() for tensor in data(torch.float64).tensors)
    for step, factor in enumerate(ramp):
        inputs, labels = x[8 * (step % 4) :][:8], np.eye(3)[y[8 * (step % 4) :][:8]]
        logits, answers = inputs @ weight.T, teacher(torch.from_numpy(inputs)).detach().numpy()
        own = (softmax(logits) - labels) / 8
        distilled = 3.0 * (softmax(logits / 3) - softmax(answers / 3)) / 8
        gradient = (1 - factor) * own + factor * (0.4 * own + 0.8 * distilled)
        weight -= 0.1 * gradient.T @ inputs
    np.testing.assert_allclose(module.fc.weight.detach().numpy(), weight, rtol=0, atol=1e-13)
    assert float(trainer.callback_metrics["distillation/ramp"]) == ramp[-1]


def half() -> dict[str, Any]:
    # precision="16-mixed" on the CPU would silently be bfloat16 without a scaler
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler=GradScaler("cpu", init_scale=1024.0))]}


@pytest.mark.parametrize(
    "options",
    [dict, lambda: {"accumulate_grad_batches": 2}, lambda: {"precision": "bf16-mixed"}, half],
    ids=["plain", "accumulation", "bfloat16", "float16 with a scaler"],
)
@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.AdamW, lr=0.01)], ids=["SGD", "AdamW"])
def test_terms_and_adapters_are_as_if_they_were_the_modules(
    options: Callable[[], dict[str, Any]], optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    module, reference = seeded(Plain, optimizer), seeded(ByHand, optimizer)
    callback = distillation(features=HINT)
    fit(module, callback, **options())
    fit(reference, **options())
    assert same(module, reference)
    assert "training_step" not in vars(module)
    adapter = callback.state_dict()["adapters"]["weights"]
    for trained, expected in zip(adapter, reference.get_submodule("adapter").parameters(), strict=True):
        assert torch.equal(trained, expected)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_a_step_whose_gradients_overflow_moves_neither_module_nor_adapters() -> None:
    callback, module = distillation(features=HINT), seeded()
    scaler = GradScaler("cpu", init_scale=2.0**60, growth_interval=1000)
    fit(module, callback, plugins=[MixedPrecision("16-mixed", "cpu", scaler=scaler)], max_epochs=1)
    assert same(module.net[0], seeded().net[0])
    weights = callback.state_dict()["adapters"]["weights"]
    assert torch.equal(weights[0], Adapter(torch.zeros(1, 8), torch.zeros(1, 12), seed=0).weight)


def test_two_processes_average_the_gradients_of_module_and_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # it would shuffle otherwise than by default
    module = seeded(Called)
    callback = distillation(student="", features=(Match("net.0", "0", Hint(), weight=0.5, adapt=True),))
    fit(module, callback, devices=2, strategy="ddp_spawn", max_epochs=1)
    reference = seeded(ByHand)
    (optimizer,), _ = reference.configure_optimizers()
    shares = [list(DistributedSampler(data(), 2, rank)) for rank in range(2)]
    for start in range(0, len(shares[0]), 8):
        optimizer.zero_grad()
        statistics = []
        before = copy.deepcopy(reference.net[1].state_dict())
        for share in shares:
            reference.net[1].load_state_dict(before)
            batch = default_collate([data()[index] for index in share[start : start + 8]])
            (reference.training_step(batch, 0) / 2).backward()
            statistics.append(copy.deepcopy(reference.net[1].state_dict()))
        reference.net[1].load_state_dict(statistics[0])
        optimizer.step()
    assert same(module, reference)


def test_an_optimizer_that_evaluates_a_step_several_times_is_taught_each_time() -> None:
    module, reference = Linear(), Linear()
    reference.load_state_dict(module.state_dict())
    teacher = nn.Linear(5, 3, dtype=torch.float64)
    many = partial(torch.optim.LBFGS, lr=0.1, max_iter=3)
    module.configure_optimizers = lambda: many(module.parameters())  # type: ignore[method-assign]
    fit(module, KnowledgeDistillation(teacher), dtype=torch.float64, max_epochs=1)
    optimizer = many(reference.parameters())
    for x, y in DataLoader(data(torch.float64), batch_size=8):

        def closure(x: Tensor = x, y: Tensor = y) -> Any:
            optimizer.zero_grad()
            logits = reference(x)
            loss = F.cross_entropy(logits, y) + Hinton()(logits, teacher(x).detach())
            loss.backward()
            return loss

        optimizer.step(closure)
    torch.testing.assert_close(module.fc.weight, reference.fc.weight, rtol=0, atol=1e-12)


def test_nothing_to_learn_from_the_teacher_is_plain_training_to_the_bit() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("the teacher ran")

    module = seeded()
    trainer = fit(module, KnowledgeDistillation(Never(), weight=0.0, features=[Match("0", "0", Hint(), weight=0.0)]))
    draws, plain = torch.get_rng_state(), seeded()
    fit(plain)
    assert same(module, plain)
    assert torch.equal(torch.get_rng_state(), draws)
    assert not trainer.callback_metrics


def test_terms_are_logged_as_means_over_the_epoch() -> None:
    class Looks(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, *args: Any) -> None:
            with torch.no_grad():
                student, teacher = copy.deepcopy(pl_module.net), wide().eval()
                hidden, wanted = student[0](batch[0]), teacher[0](batch[0])
                expected["distillation/hinton"] += len(batch[0]) * Hinton()(student(batch[0]), teacher(batch[0])) / 28
                expected["distillation/similarity[0]"] += len(batch[0]) * Similarity()(hidden, wanted) / 28

    expected = {name: torch.zeros(()) for name in ("distillation/hinton", "distillation/similarity[0]")}
    trainer = quiet_trainer(distillation(features=[Match("0", "0", Similarity())]), Looks(), max_epochs=1)
    trainer.fit(seeded(), DataLoader(TensorDataset(*data()[:28]), batch_size=8))
    logged = trainer.callback_metrics
    assert logged.keys() == {*expected, "distillation/ramp"}
    torch.testing.assert_close({name: logged[name] for name in expected}, expected)


def test_labels_are_found_in_tuples_and_mappings_and_missed_where_there_are_none() -> None:
    class Named(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch["image"], batch["key"] if "key" in batch else batch["targets"]), 0)

    ends = []
    for cls, names in ((Plain, None), (Named, ("image", "targets")), (Named, ("image", "key"))):
        module, rows = seeded(cls), [tuple(row) for row in data()]
        batches: Any = rows if names is None else [dict(zip(names, row, strict=True)) for row in rows]
        trainer = quiet_trainer(distillation(loss=Decoupled()), max_epochs=1)
        if names == ("image", "key"):
            message = r"expected whole-number labels of shape \(8,\) for logits \(8, 3\), got none; use Hinton"
            with pytest.raises(InputError, match=message):
                trainer.fit(module, DataLoader(batches, batch_size=8))
        else:
            trainer.fit(module, DataLoader(batches, batch_size=8))
            ends.append(module)
    assert same(*ends)


def test_features_of_other_sizes_are_averaged_down_and_adapted() -> None:
    torch.manual_seed(0)
    data_module = digits()
    student, teacher = digits_resnet(), ResNet((1, 1, 1), widths=(8, 12, 20), in_channels=1)
    features = [Match("layer3", "layer2", Hint(), adapt=True), Match("layer1", "layer2", Attention(), weight=10.0)]
    module = ImageClassifier(student, 10)
    module.example_input_array = data_module.example_input(1)
    callback = KnowledgeDistillation(teacher, loss=None, features=features, student="network")
    quiet_trainer(callback, limit_train_batches=2, max_epochs=1).fit(module, datamodule=data_module)
    weight, _, shift = callback.state_dict()["adapters"]["weights"]
    assert weight.shape == (12, 64)
    assert shift.abs().min() > 0


def test_an_adapter_draws_nothing_from_the_global_random_state_and_keeps_the_dimensions() -> None:
    state = torch.get_rng_state()
    images, tokens = torch.randn(2, 5, 4, 3), torch.randn(2, 7, 5)
    after = torch.get_rng_state()
    adapter = Adapter(images, torch.zeros(2, 6, 1, 1), seed=0)
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(state, after)
    with torch.no_grad():
        mapped = F.conv2d(images, adapter.weight[:, :, None, None])
        torch.testing.assert_close(adapter(images), nn.BatchNorm2d(6)(mapped))
        linear = Adapter(tokens, torch.zeros(2, 7, 6), seed=0)
        mapped = nn.BatchNorm1d(6)((tokens @ linear.weight.T).flatten(0, 1))
        torch.testing.assert_close(linear(tokens), mapped.view(2, 7, 6))
        flat = Adapter(tokens[:, 0], torch.zeros(2, 6), seed=0)
        torch.testing.assert_close(flat(tokens[:, 0]), nn.BatchNorm1d(6)(tokens[:, 0] @ flat.weight.T))


def test_cached_logits_teach_like_computed_ones() -> None:
    class Counts(nn.Sequential):
        calls = 0

        def forward(self, x: Tensor) -> Any:
            self.calls += len(x)
            return super().forward(x)

    def linear() -> Counts:
        return Counts(nn.Flatten(), nn.Linear(64, 10))

    ends, teachers = [], (linear(), linear())
    teachers[1].load_state_dict(teachers[0].state_dict())
    for cache, teacher in zip((False, True), teachers, strict=True):
        torch.manual_seed(0)
        module = ImageClassifier(linear(), 10, SGD)
        callback = KnowledgeDistillation(teacher, student="network", cache=cache)
        quiet_trainer(callback).fit(module, datamodule=digits(views=1))
        ends.append(module)
    assert teachers[0].calls > 1.9 * 1257
    assert 1257 <= teachers[1].calls < 1257 + 64
    for one, other in zip(ends[0].parameters(), ends[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_a_cache_is_not_used_where_it_cannot_be_or_would_be_wrong() -> None:
    computed, reason = seeded(), "expected a data module whose views can be counted, got none"
    fit(computed, distillation())
    for options, why in (({}, reason), ({"features": [Match("0", "0", Similarity(), weight=0.001)]}, "features are m")):
        module = seeded()
        with pytest.warns(UserWarning, match=f"computes the teacher's logits in spite of cache=True: {why}"):
            fit(module, distillation(cache=True, **options))
        assert bool(options) != same(module, computed)

    class Mixes(ImageClassifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step((batch[0].flip(0), batch[1]), batch_idx)

    with pytest.raises(InputError, match="gives the student the images of the batch as they are for cache=True"):
        quiet_trainer(KnowledgeDistillation(student="network", cache=True), max_epochs=1).fit(
            Mixes(digits_resnet(), 10), datamodule=digits(views=2)
        )
