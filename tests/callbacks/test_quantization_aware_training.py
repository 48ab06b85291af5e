"""What a user of QuantizationAwareTraining relies on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from quantizer_family import QUANTIZERS
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GradualPruning, KnowledgeDistillation, QuantizationAwareTraining, SoftFilterPruning
from lightning_prune.errors import InputError
from lightning_prune.quantization.quantization_interceptor import quantization_of
from lightning_prune.quantization.quantize import dequantize
from lightning_prune.quantization.quantizers.affine import Affine
from lightning_prune.quantization.quantizers.bwn import BWN
from lightning_prune.quantization.quantizers.lsq import LSQ
from lightning_prune.quantization.quantizers.quantizer import Quantizer
from lightning_prune.quantization.quantizers.twn import TWN
from lightning_prune.quantization.quantizers.xnor import XNOR

IMAGES = torch.randn(48, 2, 6, 6, generator=torch.Generator().manual_seed(0))
CLASSES = (IMAGES.mean((1, 2, 3)) > 0).long()


class Foreign(LightningModule):
    """Somebody's module: a functional residual sum, its own step, and no trace of this package."""

    def __init__(self, partial: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.partial = partial
        self.stem = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 2)
        self.example_input_array = IMAGES[:2]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.inner(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        own = [*self.stem.parameters(), *self.inner.parameters()] if self.partial else self.parameters()
        return torch.optim.SGD(own, lr=0.05, momentum=0.9)


def loader(batch_size: int = 8) -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, CLASSES), batch_size=batch_size)


def fit(module: LightningModule, *callbacks: Callback, **settings: Any) -> Trainer:
    trainer = quiet_trainer(*callbacks, num_sanity_val_steps=0, **settings)
    trainer.fit(module, loader(), loader(48))
    return trainer


# Any module, no edits -------------------------------------------------------------------------------------------------


class Start(Callback):
    """Keeps what the quantizers begin with, once the first batch has been seen."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step <= 1:
            quantization = quantization_of(pl_module)
            assert quantization is not None
            self.parameters = {name: tensor.detach().clone() for name, tensor in quantization.named_parameters()}


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)
@pytest.mark.parametrize("settings", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_every_quantizer_trains_all_that_it_has(quantizer: Quantizer, settings: dict[str, Any]) -> None:
    module, start = Foreign(), Start()
    before = copy.deepcopy(module.state_dict())
    fit(module, QuantizationAwareTraining(quantizer, activations_from=0), start, **settings)
    quantization = quantization_of(module)
    assert quantization is not None
    for name, tensor in module.state_dict().items():
        # The batch norm behind it takes that bias away again.
        assert name == "inner.bias" or not torch.equal(tensor, before[name]), name
    for name, parameter in quantization.named_parameters():
        # A clipping level of 10 is beyond what these activations reach, so that only weight decay would move it.
        assert parameter.isfinite()
        assert name.endswith("alpha") or not torch.equal(parameter, start.parameters[name])
    weight = quantization.rounding.layer("inner").rounded(module.inner.weight)
    assert len(weight[0].unique()) <= 255
    assert not torch.equal(weight, module.inner.weight)
    assert list(module.state_dict()) == list(before)


def test_its_checkpoint_is_that_of_the_plain_module(tmp_path: Path) -> None:
    module = Foreign()
    fit(module, QuantizationAwareTraining(LSQ()), ModelCheckpoint(tmp_path, filename="end"))
    checkpoint = torch.load(tmp_path / "end.ckpt", weights_only=True)
    plain = Foreign()
    plain.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(plain.inner.weight, module.inner.weight)


def test_after_training_it_stays_quantized_until_it_is_dequantized() -> None:
    module = Foreign()
    trainer = fit(module, QuantizationAwareTraining(Affine(3, 3)))
    quantized = torch.cat(trainer.predict(module, loader()))  # type: ignore[arg-type]
    with torch.no_grad():
        # In the same batches: on some processors a number depends on how many are computed beside it.
        assert torch.equal(torch.cat([module.eval()(images) for images, _ in loader()]), quantized)
    seen: list[Tensor] = []
    module.fc.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    module(IMAGES)
    plain = dequantize(module)
    plain(IMAGES)
    assert len(seen[0].unique()) <= 8 < len(seen[1].unique())
    assert len(plain.stem.weight[0].unique()) <= 7


class Manual(Foreign):
    """The same steps by hand."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        optimizer.step()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of what torch.compile does
@pytest.mark.parametrize("quantizer", [Affine(), LSQ()], ids=str)
@pytest.mark.parametrize("kind", ["manual", "compiled"])
def test_manual_optimization_and_compiled_modules_train_alike(kind: str, quantizer: Quantizer) -> None:
    plain, other = Foreign(), Manual() if kind == "manual" else Foreign()
    torch.compiler.reset()
    fit(plain, QuantizationAwareTraining(quantizer))
    fit(
        torch.compile(other, backend="aot_eager") if kind == "compiled" else other, QuantizationAwareTraining(quantizer)
    )
    for one, twin in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, twin, rtol=1e-3, atol=1e-4)


# When -----------------------------------------------------------------------------------------------------------------


class Watch(Callback):
    """Notes, for each training batch, what is on."""

    def __init__(self) -> None:
        self.seen: list[tuple[bool, bool, bool]] = []
        self.highs: list[float] = []
        self.means: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        quantization = quantization_of(pl_module)
        assert quantization is not None
        self.highs.append(float(quantization.rounding.activations()["/relu/1"].limit()))
        self.seen.append((quantization.rounding.quantizing, pl_module.norm.training, pl_module.training))
        self.means.append(pl_module.norm.running_mean.clone())
        assert not any(activation.observing for activation in quantization.rounding.activations().values())


def test_schedule_in_optimizer_steps() -> None:
    watch = Watch()
    module = Foreign()
    fit(module, QuantizationAwareTraining(activations_from=2, freeze_ranges=5, freeze_batch_norm=8), watch)
    assert [quantizing for quantizing, _, _ in watch.seen] == [False] * 2 + [True] * 10
    assert [training for _, training, _ in watch.seen] == [True] * 8 + [False] * 4
    moved = [one != other for one, other in zip(watch.highs, watch.highs[1:], strict=False)]
    assert moved == [True] * 4 + [False] * 7
    changed = [not torch.equal(one, other) for one, other in zip(watch.means, watch.means[1:], strict=False)]
    assert changed == [True] * 7 + [False] * 4
    assert module.norm.training  # given back


def test_ranges_follow_the_moving_average_of_what_is_seen() -> None:
    seen: list[float] = []

    class Inputs(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(float(batch[0].max()))

    module = Foreign()
    fit(module, QuantizationAwareTraining(Affine(averaging=0.25), freeze_ranges=1.0), Inputs())
    expected = seen[0]
    for value in seen[1:]:
        expected += 0.25 * (value - expected)
    quantization = quantization_of(module)
    assert quantization is not None
    assert float(quantization.rounding.activations()["stem"].high) == pytest.approx(expected, rel=1e-5)


def test_with_a_pruner_nothing_is_frozen_before_it_is_done() -> None:
    watch = Watch()
    callbacks = [SoftFilterPruning(0.4, hard_from=0.8), QuantizationAwareTraining(), watch]
    module = Foreign()
    fit(module, *callbacks, max_epochs=5)
    frozen = [not training for _, training, _ in watch.seen]
    assert frozen == [False] * 24 + [True] * 6
    gone = (module.inner.weight == 0).flatten(1).all(1)
    assert gone.sum() == 2
    assert (module.norm2.weight[gone] == 0).all()


@pytest.mark.parametrize("quantizer", [quantizer for quantizer in QUANTIZERS if not quantizer.whole_filters], ids=str)
def test_pruned_weights_are_zero_in_every_quantizer(quantizer: Quantizer) -> None:
    module = Foreign()
    fit(module, GradualPruning(0.5, skip=()), QuantizationAwareTraining(quantizer, first_bits=None))
    quantization = quantization_of(module)
    assert quantization is not None
    for name, site in quantization.layer_calls.items():
        weight = quantization.stored(site.weight)
        assert int((weight == 0).sum()) == weight.numel() // 2
        assert (quantization.rounding.layer(name).rounded(weight)[weight == 0] == 0).all()


def test_a_teacher_that_is_copied_is_float() -> None:
    module = Foreign()
    distillation = KnowledgeDistillation()
    fit(module, QuantizationAwareTraining(), distillation)
    assert quantization_of(module) is not None
    assert quantization_of(distillation._teacher.network) is None


# Stop and go on -------------------------------------------------------------------------------------------------------


def test_looking_at_a_checkpoint_takes_its_ranges(tmp_path: Path) -> None:
    module = Foreign()
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trainer = fit(module, QuantizationAwareTraining(activations_from=0), saving, max_epochs=3)
    path = tmp_path / "epoch=0.ckpt"
    at_once = torch.cat(trainer.predict(module, loader(), ckpt_path=path, weights_only=True))  # type: ignore[arg-type]
    later_module = Foreign()
    later = quiet_trainer(QuantizationAwareTraining(), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1))
    again = torch.cat(later.predict(later_module, loader(), ckpt_path=path, weights_only=True))  # type: ignore[arg-type]
    assert torch.equal(at_once, again)
    high = torch.load(path, weights_only=True)["callbacks"]["QuantizationAwareTraining"]["state"][
        "layers.stem.input.high"
    ]
    assert quantization_of(later_module).rounding.activations()["stem"].high == high  # type: ignore[union-attr]
    torch.save({**torch.load(path, weights_only=True), "callbacks": {}}, path)
    plain = Foreign()
    quiet_trainer(QuantizationAwareTraining()).predict(plain, loader(), ckpt_path=path, weights_only=True)
    assert quantization_of(plain) is None  # a checkpoint of a float run stays what it is


def test_a_further_fit_goes_on_with_the_ranges_and_another_callback_begins_anew() -> None:
    module = Foreign()
    callback = QuantizationAwareTraining()
    fit(module, callback)
    first = quantization_of(module)
    fit(module, callback)
    assert quantization_of(module) is first
    fit(module, QuantizationAwareTraining(LSQ()))
    assert quantization_of(module) is not first
    assert len(module._forward_pre_hooks) == 0
    assert all(len(layer._forward_pre_hooks) == 1 for layer in (module.stem, module.fc))


# Refused before training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activations_from": 1.5}, "expected activations_from in optimizer steps"),
        ({"first_bits": 1}, "expected first_bits .*, got 1"),
        ({"quantizer": BWN(), "last_bits": 8}, "expected last_bits of 32 bits, .* got 8"),
        (
            {"quantizer": "dorefa"},
            "expected quantizer to be a Quantizer such as Affine.*, got 'dorefa'; write: from .*dorefa import DoReFa",
        ),
        ({"layers": ["fc"]}, r"expected layers to be a Mapping, got \['fc'\]"),
        ({"layers": {"fc": 4}}, r"expected layers\[fc\] to be a Quantizer such as Affine.*, got 4"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        QuantizationAwareTraining(**options)


def test_an_optimizer_that_leaves_out_what_is_learned_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected an optimizer of all parameters of Foreign, with .*LSQ learns"):
        fit(Foreign(partial=True), QuantizationAwareTraining(LSQ()))
    fit(Foreign(partial=True), QuantizationAwareTraining(Affine()))


def test_a_training_step_may_call_the_network_but_not_go_round_it() -> None:
    class Around(Foreign):
        def __init__(self) -> None:
            super().__init__()
            self.net = Foreign()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).softmax(1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

    class Astray(Around):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net.fc(self.net.stem(batch[0]).mean((2, 3))), batch[1])

    module, plain = Around(), Around()
    fit(module, QuantizationAwareTraining(TWN()))
    fit(plain)
    assert not torch.equal(module.net.inner.weight, plain.net.inner.weight)
    before = copy.deepcopy(Astray().state_dict())
    astray = Astray()
    with pytest.raises(InputError, match="training_step to call what its forward calls, got one that goes round it"):
        fit(astray, QuantizationAwareTraining(TWN()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in astray.state_dict().items())


def test_no_example_input_is_refused() -> None:
    module = Foreign()
    module.example_input_array = None
    with pytest.raises(InputError, match=r"pass example_input or set Foreign.example_input_array"):
        fit(module, QuantizationAwareTraining())
    fit(module, QuantizationAwareTraining(example_input=IMAGES[:2]))


def test_callbacks_that_make_no_sense_together_are_refused() -> None:
    with pytest.raises(InputError, match="XNOR has no level for a weight that is zero in a filter that is not"):
        fit(Foreign(), QuantizationAwareTraining(XNOR()), GradualPruning(0.5))
    fit(Foreign(), QuantizationAwareTraining(XNOR()), SoftFilterPruning(0.4))


def test_zeros_among_other_weights_of_a_filter_are_refused_where_there_is_no_level_for_them() -> None:
    module = Foreign()
    with torch.no_grad():
        module.inner.weight[2] = 0.0
    fit(module, QuantizationAwareTraining(XNOR()))
    module = Foreign()
    with torch.no_grad():
        module.inner.weight[2, 0] = 0.0
    with pytest.raises(InputError, match="no zeros, got others in inner, for which XNOR has no level; choose another"):
        fit(module, QuantizationAwareTraining(XNOR()))


def test_a_run_that_has_diverged_is_stopped() -> None:
    class Diverging(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * (torch.nan if batch_idx == 5 else 1.0)

    with pytest.raises(InputError, match=r"expected finite weights in stem, got NaN or inf"):
        fit(Diverging(), QuantizationAwareTraining())
