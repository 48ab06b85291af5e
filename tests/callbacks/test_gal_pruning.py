"""GAL as a callback: from a trained network to one that has really lost blocks, branches or channels."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GALPruning, GradualPruning, KnowledgeDistillation, SoftFilterPruning, slim
from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.errors import InputError
from lightning_prune.models.googlenet import Inception
from lightning_prune.models.resnet import ResNet

IMAGES = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 10


class Module(LightningModule):
    def __init__(self, network: nn.Module, lr: float = 0.01) -> None:
        super().__init__()
        self.network = network
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=2e-4)


def loader(labels: Tensor = LABELS) -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, labels), batch_size=8)


def resnet() -> Module:
    torch.manual_seed(0)
    return Module(ResNet((2, 2, 1)))


def fit(module: Module, *callbacks: Callback, labels: Tensor = LABELS, **settings: Any) -> None:
    quiet_trainer(*callbacks, **{"max_epochs": 4, "logger": False, **settings}).fit(module, loader(labels))


def test_ends_with_the_fraction_that_is_asked_for_really_gone() -> None:
    module = resnet()
    gal = GALPruning(sparsity=0.6, end=0.5, every=1)
    fit(module, gal)
    assert gal.is_final
    assert sum(len(units) for units in gal.report(module)["removed"].values()) == 3
    small = slim(module, IMAGES)
    module.eval(), small.eval()
    torch.testing.assert_close(small(IMAGES), module(IMAGES), rtol=0, atol=1e-6)
    kept = {name.split(".conv")[0] for name, _ in small.named_parameters() if ".layer" in name and "conv1" in name}
    assert len(kept) == 2


def test_removes_something_as_it_is() -> None:
    gal, module = GALPruning(), resnet()
    fit(module, gal)
    gone = list(gal.report(module)["removed"])
    assert len(gone) == round(0.4 * 5)
    assert not any(parameter.any() for name in gone for parameter in module.get_submodule(name).parameters())


def test_masks_at_zero_go_without_a_target() -> None:
    module = resnet()
    gal = GALPruning(sparsity=None, l1=3.0, alignment=0.01, learning_rate=0.05, every=1, end=0.75)
    fit(module, gal)
    removed = gal.report(module)["removed"]
    assert 1 <= len(removed) <= 4
    for name in removed:
        block = module.get_submodule(name)
        assert not any(parameter.any() for parameter in block.parameters())


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_search_looks_at_no_labels(variant: Any) -> None:
    ends = []
    for labels in (LABELS, LABELS.flip(0)):
        module = resnet()
        fit(module, GALPruning(sparsity=None, l1=0.01, variant=variant, every=1, end=1.0), labels=labels)
        ends.append(module.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_begins_with_the_teachers_weights_and_leaves_the_teacher_alone() -> None:
    torch.manual_seed(7)
    teacher = ResNet((2, 2, 1)).train()
    before = copy.deepcopy(teacher.state_dict())

    class First(Callback):
        def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
            self.weights = copy.deepcopy(pl_module.state_dict())

    first, module = First(), resnet()
    fit(module, GALPruning(teacher, sparsity=0.4, variant="official", every=1), first)
    assert all(torch.equal(first.weights[f"network.{name}"], tensor) for name, tensor in before.items())
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in before.items())
    assert teacher.training
    assert not any("teacher" in name for name in module.state_dict())


def test_branches_leave_their_concatenation() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    module = Module(nn.Sequential(Inception(3, 8, 4, 8, 4, 8, 8), Inception(32, 8, 4, 8, 4, 8, 8), *head))
    fit(module, GALPruning(sparsity=0.5, every=1))
    small = slim(module, IMAGES)
    assert sum(p.numel() for p in small.parameters()) < 0.75 * sum(p.numel() for p in module.parameters())
    torch.testing.assert_close(small.eval()(IMAGES), module.eval()(IMAGES))


def test_channels_are_removed_with_all_that_belongs_to_them() -> None:
    torch.manual_seed(0)
    module = Module(ResNet((2, 2, 2)))
    fit(module, GALPruning(sparsity=0.5, structures=["channel"], every=1, l1=0.01))
    small = slim(module, IMAGES)
    blocks = [f"network.layer{stage}.{number}.conv1" for stage in (1, 2, 3) for number in (0, 1)]
    widths: list[Any] = [small.get_submodule(name).out_channels for name in blocks]
    assert sum(widths) == (16 + 32 + 64) * 2 / 2
    torch.testing.assert_close(small.eval()(IMAGES), module.eval()(IMAGES), rtol=0, atol=1e-5)


def test_validation_sees_the_masks_and_training_goes_on_as_without_it() -> None:
    ends = []
    for batches in (0, 1):
        module = resnet()
        trainer = quiet_trainer(
            GALPruning(sparsity=0.4, every=1), max_epochs=3, num_sanity_val_steps=0, limit_val_batches=batches
        )
        module.validation_step = lambda *args, **kwargs: None  # type: ignore[method-assign]
        trainer.fit(module, loader(), loader())
        ends.append(module.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_accumulated_batches_count_as_one_step() -> None:
    module = resnet()
    gal = GALPruning(sparsity=0.4, every=1)
    trainer = quiet_trainer(gal, max_epochs=4, accumulate_grad_batches=2)
    trainer.fit(module, loader())
    assert trainer.global_step == 8
    assert gal.is_final


class Overflow(Callback):
    """Let the gradients of the second step overflow."""

    def on_after_backward(self, trainer: Any, pl_module: LightningModule) -> None:
        if trainer.fit_loop.total_batch_idx == 1:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(float("inf"))


@pytest.mark.filterwarnings("ignore:.*lr_scheduler")
def test_a_step_that_the_scaler_skips_changes_no_mask() -> None:
    module = resnet()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    gal = GALPruning(sparsity=0.4, every=1, end=0.9)
    fit(module, gal, Overflow(), plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    assert all(tensor.isfinite().all() for tensor in module.state_dict().values())
    assert gal.is_final


def test_what_is_logged() -> None:
    module = resnet()
    trainer = quiet_trainer(GALPruning(sparsity=0.4, every=1, end=1.0, l1=0.0), max_epochs=2)
    trainer.fit(module, loader())
    names = {name for name in trainer.callback_metrics if name.startswith("gal/")}
    assert names >= {f"gal/{term}" for term in ("adversarial", "alignment", "l1", "discriminator")}
    assert names >= {"gal/discriminator_accuracy", "gal/removed", "gal/masks/0", "gal/kept/network.layer1.0"}
    assert float(trainer.callback_metrics["gal/removed"]) == pytest.approx(0.4)
    kept = [float(value) for name, value in trainer.callback_metrics.items() if name.startswith("gal/kept/")]
    assert sorted(kept) == [0, 0, 1, 1, 1]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sparsity": 1.0}, r"expected sparsity in \[0, 1\), got 1.0"),
    ({"structures": "block"}, "expected structures to be a list of block, branch, channel, got 'block'"),
    ({"structures": ["layer"]}, "expected structures to be one of block, branch, channel, got 'layer'"),
    ({"variant": "mine"}, "expected variant to be one of paper, official, got 'mine'"),
    ({"l1": -1.0}, r"expected l1 in \[0, inf\), got -1.0"),
    ({"every": 0}, "expected every to be at least one optimizer step"),
    ({"end": 1}, "expected end=1.0 for the end of the run, or end=2 or more in optimizer steps, got end=1"),
    ({"end": 0}, "expected end of the search after the beginning of the run, got 0"),
    ({"seed": "x"}, "expected seed to be a whole number, got 'x'"),
    ({"student": None}, "expected student to be a str, got None"),
    ({"teacher": "resnet"}, "expected teacher to be a Module or None, got 'resnet'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GALPruning(**arguments)


def test_what_cannot_work_is_refused_before_training() -> None:
    def refused(message: str, *callbacks: Callback, module: Module | None = None) -> None:
        module = module or resnet()
        before = copy.deepcopy(module.state_dict())
        with pytest.raises(InputError, match=message):
            fit(module, *callbacks)
        assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in before.items())

    refused("expected a sparsity that removes at least one of the 5 structures", GALPruning(sparsity=0.05))
    refused("expected GALPruning without SoftFilterPruning beside it: the search", GALPruning(), SoftFilterPruning(0.4))
    refused("expected GALPruning without GradualPruning beside it: the search", GradualPruning(0.4), GALPruning())
    refused("expected GALPruning without KnowledgeDistillation beside it: the", GALPruning(), KnowledgeDistillation())
    refused("another architecture", GALPruning(ResNet((1, 1, 1))))
    refused(
        "structures that can be masked", GALPruning(), module=Module(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)))
    )
    manual = resnet()
    manual.automatic_optimization = False
    refused("automatic optimization", GALPruning(), module=manual)


def test_an_exception_leaves_the_masks_in_the_weights_and_nothing_else() -> None:
    class Stop(Callback):
        def on_after_backward(self, trainer: Any, pl_module: LightningModule) -> None:
            if trainer.global_step == 3:
                raise ValueError("stop")

    module = resnet()
    plain = module.training_step
    with pytest.raises(ValueError, match="stop"):
        fit(module, GALPruning(sparsity=0.4, every=1), Stop())
    assert module.training_step == plain
    assert not module._forward_hooks
    assert not module.network._forward_hooks


@pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:You're resuming from a checkpoint that ended before")
def test_a_search_stopped_in_mid_epoch_ends_with_the_same_bits_and_logs_the_same(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 6:  # of 4 in an epoch
                raise KeyboardInterrupt

    def run(*more: Callback, path: Path | None = None) -> tuple[Module, Any]:
        module = resnet()
        saving = ModelCheckpoint(tmp_path, "last", every_n_train_steps=1, enable_version_counter=False)
        trainer = quiet_trainer(GALPruning(sparsity=0.4, every=1), ExactResume(), saving, *more, max_epochs=3)
        trainer.fit(module, loader(), ckpt_path=path)
        return module, trainer

    whole, expected = run()
    with pytest.raises(SystemExit):
        run(Stop())
    resumed, trainer = run(path=tmp_path / "last.ckpt")
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in whole.state_dict().items())
    logged = [{name: float(value) for name, value in t.callback_metrics.items()} for t in (expected, trainer)]
    assert "gal/discriminator_accuracy" in logged[0]
    assert logged[0] == logged[1]
