from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from quiet_trainer import quiet_trainer
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    # Lightning 2.6 under torch 2.13.
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
]


@pytest.fixture(scope="module")
def digits() -> tuple[TensorDataset, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    train, val = order[:1440], order[1440:]
    return TensorDataset(x[train], y[train]), TensorDataset(x[val], y[val])


@pytest.fixture
def batches() -> DataLoader[tuple[Tensor, ...]]:
    """Nine samples in batches of four: the last one is smaller."""
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(9, 1, 8, 8, generator=generator), torch.arange(9) % 3
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def small(**arguments: Any) -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), 3, **arguments)


def test_digits_are_learned_with_the_defaults_and_the_checkpoint_is_plain_weights(digits, tmp_path: Path):
    torch.manual_seed(0)
    train, val = digits
    module, saver = ImageClassifier(digits_resnet(), 10), ModelCheckpoint(tmp_path, filename="end")
    trainer = quiet_trainer(saver, max_epochs=5)
    trainer.fit(module, DataLoader(train, 64, shuffle=True), DataLoader(val, 128))

    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    fresh = digits_resnet()
    fresh.load_state_dict({key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()})
    assert "hyper_parameters" not in checkpoint
    assert all(key.startswith("network.") for key in checkpoint["state_dict"])
    with torch.inference_mode():
        right = fresh.eval()(val.tensors[0]).argmax(1) == val.tensors[1]
    assert trainer.callback_metrics["val/accuracy"].item() == pytest.approx(right.float().mean().item())
    assert right.float().mean() > 0.95


def test_losses_and_accuracies_are_means_over_samples(batches):
    module, trainer = small(), quiet_trainer(max_epochs=1)
    with torch.no_grad():
        images, labels = batches.dataset.tensors
        logits = module(images)
        loss, accuracy = F.cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()

    assert trainer.test(module, batches, verbose=False) == [
        {"test/loss": pytest.approx(loss), "test/accuracy": pytest.approx(accuracy)}
    ]
    assert trainer.validate(module, batches, verbose=False) == [
        {"val/loss": pytest.approx(loss), "val/accuracy": pytest.approx(accuracy)}
    ]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_training_follows_a_plain_loop_and_logs_the_last_epoch(batches, epochs):
    module, reference = small(optimizer=partial(SGD, lr=0.5)), small().network
    for epoch in range(epochs):
        loss, right = 0.0, 0
        optimizer = SGD(
            reference.parameters(), lr=0.5 * 0.2 ** sum(epoch >= share * epochs for share in (0.3, 0.6, 0.8))
        )
        for images, labels in batches:
            optimizer.zero_grad()
            logits = reference(images)
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
            loss += F.cross_entropy(logits, labels).item() * len(labels) / 9
            right += (logits.argmax(1) == labels).sum().item()
    trainer = quiet_trainer(max_epochs=epochs)
    trainer.fit(module, batches, batches)

    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(loss)
    assert trainer.callback_metrics["train/accuracy"].item() == pytest.approx(right / 9)
    assert set(trainer.callback_metrics) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert set(trainer.progress_bar_metrics) == {"train/loss", "val/accuracy"}


def test_predict_returns_logits_and_labels(batches):
    module = small()
    outputs = quiet_trainer().predict(module, batches)
    logits, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))

    assert torch.equal(labels, batches.dataset.tensors[1])
    torch.testing.assert_close(logits, module(batches.dataset.tensors[0]))


def rates(max_epochs: int, epochs: int) -> list[float]:
    """Return the learning rate of each epoch under the default recipe."""
    module = small()
    module.trainer = quiet_trainer(max_epochs=max_epochs)
    configured = module.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_default_recipe_is_that_of_the_filter_pruning_papers():
    module = small()
    module.trainer = quiet_trainer(max_epochs=200)
    optimizer = module.configure_optimizers()["optimizer"]
    group = optimizer.param_groups[0]

    assert isinstance(optimizer, SGD)
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)
    assert rates(200, 200) == pytest.approx([0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40)


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [(1, [0.1]), (2, [0.1, 0.02]), (3, [0.1, 0.02, 0.004]), (-1, [0.1] * 4)],
)
def test_default_schedule_survives_short_and_endless_runs(max_epochs, expected):
    assert rates(max_epochs, len(expected)) == pytest.approx(expected)


def test_run_limited_by_steps_trains(batches):
    trainer = quiet_trainer(max_epochs=-1, max_steps=7)
    trainer.fit(small(), batches, batches)

    assert trainer.global_step == 7


def test_given_optimizer_and_scheduler_are_used_as_they_are(batches):
    optimizer, scheduler = partial(Adam, lr=0.01), partial(ExponentialLR, gamma=0.5)
    module, trainer = small(optimizer=optimizer, lr_scheduler=scheduler), quiet_trainer(max_epochs=3)
    trainer.fit(module, batches, batches)

    assert module.optimizer is optimizer
    assert module.lr_scheduler is scheduler
    assert isinstance(trainer.optimizers[0], Adam)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**3)


class Output(NamedTuple):
    logits: Tensor


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Output:
        return Output(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("network", "came"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), r"Sequential to return logits \(n, 3\), got \(4, 5\)"),
        (nn.Conv2d(1, 3, 1), r"Conv2d to return logits \(n, 3\), got \(4, 3, 8, 8\)"),
        (Wrapped(), r"Wrapped to return logits \(n, 3\), got a Output"),
    ],
)
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_a_network_that_gives_no_logits_is_refused_in_one_line(batches, network, came, stage):
    run = getattr(quiet_trainer(), stage)
    arguments = (batches, batches) if stage == "fit" else (batches,)
    with pytest.raises(InputError, match=f"model: expected {came}; give it 3 classes") as caught:
        run(ImageClassifier(network, 3), *arguments)
    assert "\n" not in str(caught.value)


class ReadBack(TorchDispatchMode):
    """Record operators that make the host wait for the device."""

    waits = (torch.ops.aten._local_scalar_dense, torch.ops.aten.equal, torch.ops.aten.nonzero, torch.ops.aten._unique2)

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.waited: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators += 1
        if func.overloadpacket in self.waits:
            self.waited.append(str(func))
        return func(*args, **(kwargs or {}))


class Watch(Callback):
    def __init__(self) -> None:
        self.mode = ReadBack()

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.mode.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.mode.__exit__(None, None, None)


def test_training_step_never_waits_for_the_device(batches):
    watch = Watch()
    quiet_trainer(watch, max_epochs=1).fit(small(), batches, batches)

    assert watch.mode.operators > 30
    assert watch.mode.waited == []
