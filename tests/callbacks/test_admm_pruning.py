"""ADMM pruning in whole runs: the algorithm as the paper writes it, patterns, refusals."""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GradualPruning, slim
from lightning_prune.callbacks.admm_pruning import ADMMPruning
from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.granularities.pattern import SCP4, Pattern, mined

BATCHES = 5


class Foreign(LightningModule):
    """Convolutions of 3x3, 1x1 and 5x5 kernels, trained in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.point = nn.Sequential(nn.Conv2d(12, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.out = nn.Linear(8, 3)
        self.double()

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.out(self.point(self.body(self.stem(image))).mean(dim=(2, 3)))
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def kernels(module: Foreign) -> dict[str, Tensor]:
    layers = {"stem": module.stem[0], "body": module.body[0], "point": module.point[2]}
    return {name: layer.weight.detach() for name, layer in layers.items()}


def seeded(seed: int = 0) -> Foreign:
    torch.manual_seed(seed)
    return Foreign()


def data(batch_size: int = 8) -> DataLoader:
    images = torch.randn(BATCHES * 8, 2, 6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labels = images.mean(dim=(1, 2, 3)).mul(10).long().clamp(-1, 1) + 1
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def fit(module: LightningModule, *callbacks: Callback, epochs: int = 4, batch_size: int = 8, **options: Any) -> Trainer:
    resume = options.pop("ckpt_path", None)
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, **options)
    trainer.fit(module, data(batch_size), ckpt_path=resume, weights_only=True)
    return trainer


def threshold(weight: Tensor, sparsity: float) -> Tensor:
    """The mask of the largest entries, for weights without ties."""
    kept = weight.abs().flatten().sort(descending=True).values[: weight.numel() - round(weight.numel() * sparsity)]
    return weight.abs() >= kept[-1]


def by_hand(module: Foreign, sparsity: float, begin: int, end: int, every: int, rhos: list[float]) -> None:
    """Train 20 steps by the algorithm as the paper writes it."""
    weights = [module.body[0].weight, module.point[0].weight, module.point[2].weight, module.out.weight]
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    z: list[Tensor] = []
    u: list[Tensor] = []
    masks: list[Tensor] = []
    module.train()
    batches = list(data())
    for step in range(20):
        if step == end:
            masks = [threshold(w.detach(), sparsity) for w in weights]
        elif step == begin:
            z = [w.detach() * threshold(w.detach(), sparsity) for w in weights]
            u = [torch.zeros_like(w) for w in weights]
        elif begin < step < end and (step - begin) % every == 0:
            sums = [w.detach() + dual for w, dual in zip(weights, u, strict=True)]
            z = [s * threshold(s, sparsity) for s in sums]
            u = [dual + w.detach() - copy for w, copy, dual in zip(weights, z, u, strict=True)]
            number = (step - begin) // every
            u = [dual * rhos[number - 1] / rhos[number] for dual in u]
        if step >= end:
            for w, mask in zip(weights, masks, strict=True):
                w.data *= mask
                if "momentum_buffer" in optimizer.state[w]:
                    optimizer.state[w]["momentum_buffer"] *= mask
        optimizer.zero_grad()
        loss = F.cross_entropy(module(batches[step % BATCHES][0]), batches[step % BATCHES][1])
        if begin <= step < end:
            rho = rhos[(step - begin) // every]
            loss = loss + rho / 2 * sum(((w - c + d) ** 2).sum() for w, c, d in zip(weights, z, u, strict=True))
        loss.backward()
        optimizer.step()
    for w, mask in zip(weights, masks, strict=True):
        w.data *= mask


@pytest.mark.parametrize(("begin", "end", "every"), [(2, 14, 4), (0, 10, 3), (5, 5, 1)])
def test_training_is_the_algorithm_as_the_paper_writes_it(begin: int, end: int, every: int) -> None:
    rounds = math.ceil((end - begin) / every)
    rhos = [0.1 * 4.0 ** (k / max(1, rounds - 1)) for k in range(rounds)]
    module, reference = seeded(), seeded()
    pruner = ADMMPruning(0.7, rho=0.1, rho_max=0.4, begin=begin, end=end, every=every)
    fit(module, pruner)
    by_hand(reference, 0.7, begin, end, every, rhos)
    torch.testing.assert_close(dict(module.named_parameters()), dict(reference.named_parameters()), rtol=0, atol=1e-10)
    assert pruner.is_final
    assert pruner.final_epoch == end / BATCHES
    assert pruner.masks is not None
    for name, mask in pruner.masks.items():
        assert int((~mask).sum()) == round(0.7 * mask.numel())
        assert not module.get_parameter(name)[~mask].any()


class Watch(Callback):
    """Record what is logged, and how sparse the weights are."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []
        self.zeros: list[int] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.zeros.append(sum(int((p == 0).sum()) for p in pl_module.parameters() if p.ndim > 1))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("admm/")})


def test_weights_stay_dense_and_come_ever_nearer_until_they_are_pruned() -> None:
    watch = Watch()
    fit(seeded(), ADMMPruning(0.7, rho=0.05, rho_max=1.0, begin=0, end=80, every=10), watch, epochs=17)
    assert watch.zeros[:15] == [0] * 15
    assert all(watch.zeros[15:])
    residuals = [entry["admm/residual"] for entry in watch.logged[1:16:2]]  # in the middle of each of 8 rounds
    assert residuals[-1] < 0.5 * residuals[0] < 0.5
    rhos = [entry["admm/rho"] for entry in watch.logged[1:16:2]]
    assert rhos == pytest.approx([0.05 * 20 ** (k / 7) for k in range(8)])


@pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:You're resuming from a checkpoint that ended before")
@pytest.mark.parametrize(
    ("granularity", "options", "step"),
    [(Element(), {"sparsity": 0.6}, 7), (Channel(), {"sparsity": 0.5}, 11)]
    + [(Pattern(), {"connectivity": 0.5, "mine": 3}, step) for step in (2, 7, 9, 16)],
)
def test_a_run_resumed_within_a_round_ends_at_the_same_bits(
    tmp_path: Any, granularity: Granularity, options: dict[str, Any], step: int
) -> None:
    def build() -> ADMMPruning:
        return ADMMPruning(granularity=granularity, begin=3, end=16, every=6, rho=0.1, **options)

    def saving() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path, every_n_train_steps=step, save_top_k=-1, filename="{step}")

    whole, pruner = seeded(), build()
    fit(whole, pruner, ExactResume())

    class Stop(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == step + 1:
                raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        fit(seeded(), build(), Stop(), ExactResume(), saving())
    again, resumed = seeded(7), build()
    fit(again, resumed, ExactResume(), saving(), ckpt_path=tmp_path / f"step={step}.ckpt")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert pruner.masks is not None
    assert resumed.masks is not None
    assert pruner.masks.keys() == resumed.masks.keys()
    assert all(torch.equal(resumed.masks[name], mask) for name, mask in pruner.masks.items())
    assert resumed.report(again) == pruner.report(whole)


def test_gradient_accumulation_counts_optimizer_steps_and_changes_nothing() -> None:
    class NoNorm(Foreign):
        def __init__(self) -> None:
            super().__init__()
            self.stem[1] = self.body[1] = nn.Identity()  # statistics of half a batch are others

    torch.manual_seed(0)
    whole = NoNorm()
    halves = copy.deepcopy(whole)
    fit(whole, ADMMPruning(0.6, begin=3, end=11, every=3, rho=0.1))
    fit(halves, ADMMPruning(0.6, begin=3, end=11, every=3, rho=0.1), batch_size=4, accumulate_grad_batches=2)
    torch.testing.assert_close(dict(halves.named_parameters()), dict(whole.named_parameters()), rtol=0, atol=1e-12)


def test_pconv_leaves_every_kernel_a_pattern_or_nothing_and_every_filter_as_many() -> None:
    module = seeded()
    pruner = ADMMPruning(granularity=Pattern(), connectivity=0.5, skip=["depthwise"], rho=0.1, every=2)
    fit(module, pruner)
    shapes = [
        {p for p in range(9) if kernel.view(9)[p]} for w in kernels(module).values() for kernel in w.view(-1, 3, 3)
    ]
    assert all(shape == set() or shape in map(set, SCP4) for shape in shapes)
    kept = {name: weight.flatten(2).any(2).sum(1).tolist() for name, weight in kernels(module).items()}
    assert kept == {"stem": [2] * 8, "body": [4] * 12, "point": [4] * 8}
    point = module.point[0].weight.detach()
    assert point.flatten(2).any(2).sum(1).tolist() == [6] * 8  # 1x1 kernels have no patterns, but are links too
    report = pruner.report(module)
    counts = {"-".join(map(str, pattern)): shapes.count(set(pattern)) for pattern in SCP4}
    assert report["patterns"] == {**counts, "removed": shapes.count(set()), "others": 0}
    assert sum(counts.values()) == 16 + 48 + 32
    assert report["kernel_sparsity"] == pytest.approx((48 + 32 + 48) / (16 + 96 + 64 + 96))
    assert report["weight_sparsity"] == pytest.approx(1 - (4 * 96 + 48) / (9 * 176 + 96))


def test_kernels_go_by_what_their_pattern_leaves_of_them() -> None:
    module = seeded()
    weight = module.body[0].weight
    weight.data = torch.rand_like(weight) + 0.5
    weight.data[:, 0, 0, 0] = 100.0  # a corner, which no pattern keeps
    weight.data[:, 0, 0, 1:] = weight.data[:, 0, 1:] = 0.1
    fit(module, ADMMPruning(granularity=Pattern(), connectivity=0.125, begin=0.0, end=0.0))
    assert not weight[:, 0].any()
    assert weight[:, 1:].flatten(2).any(2).all()


def test_kernels_of_a_layer_compete_if_filters_need_not_be_equal() -> None:
    module = seeded()
    module.body[0].weight.data[:3] *= 0.01
    fit(module, ADMMPruning(granularity=Pattern(), connectivity=0.25, per_filter=False, begin=0, end=0))
    assert module.body[0].weight.flatten(2).any(2).sum(1).tolist() == [0] * 3 + [8] * 9


def test_mined_patterns_are_those_of_the_weights_when_the_first_round_begins() -> None:
    class Before(Callback):
        weights: dict[str, Tensor]

        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 4:
                self.weights = {name: weight.clone() for name, weight in kernels(pl_module).items()}

    module, before = seeded(), Before()
    pruner = ADMMPruning(granularity=Pattern(), mine=5, begin=4, end=12, every=2, rho=0.1)
    fit(module, before, pruner)
    expected = mined([before.weights["body"], before.weights["point"]], 5).patterns
    assert len(expected) == 5
    assert set(expected) != set(SCP4)
    for kernel in torch.cat([module.body[0].weight.view(-1, 9), module.point[2].weight.view(-1, 9)]):
        assert tuple(kernel.nonzero().flatten().tolist()) in expected
    report = pruner.report(module)
    assert list(report["patterns"])[:5] == ["-".join(map(str, pattern)) for pattern in expected]
    assert report["kernel_sparsity"] == 0
    assert report["weight_sparsity"] == pytest.approx(5 / 9)


@pytest.mark.parametrize("residual", ["coupled", "inner"])
def test_removed_channels_leave_an_equal_slim_model(residual: Literal["coupled", "inner"]) -> None:
    module = seeded()
    pruner = ADMMPruning(0.5, granularity=Channel(residual=residual), rho=0.1, every=2, skip=[])
    fit(module, pruner)
    images = next(iter(data()))[0]
    small = slim(module, images)
    assert (small.stem[0].out_channels, small.body[0].out_channels, small.point[2].out_channels) == (4, 6, 4)
    torch.testing.assert_close(small.eval()(images), module.eval()(images))
    assert pruner.report(module)["weight_sparsity"] == pytest.approx(0.5)


def test_it_works_beside_another_pruner_and_on_bfloat16() -> None:
    module = seeded()
    channels = GradualPruning(0.5, granularity=Channel(), begin=2, end=8, every=2)
    elements = ADMMPruning({"body.*": 0.6}, rho=0.1, begin=2, end=12, every=2)
    fit(module, elements, channels, precision="bf16-true")
    assert elements.masks is not None
    assert list(elements.masks) == ["body.0.weight"]
    assert channels.masks is not None
    weight = module.body[0].weight
    assert weight.dtype == torch.bfloat16
    gone = ~(elements.masks["body.0.weight"] & channels.masks["body.0.weight"])
    assert torch.equal(weight == 0, gone)
    assert int((~elements.masks["body.0.weight"]).sum()) == round(0.6 * gone.numel())


def test_sparsity_zero_is_plain_training_and_the_module_is_left_alone() -> None:
    module, plain = seeded(), seeded()
    trainer = fit(module, ADMMPruning(0.0, scope="global"))
    fit(plain)
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in module.state_dict().items())
    assert "admm/residual" not in trainer.callback_metrics
    assert "training_step" not in vars(module)


def test_a_run_that_ends_before_it_prunes_says_so() -> None:
    class Stop(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            trainer.should_stop = True

    pruner = ADMMPruning(0.5, rho=0.1)
    with pytest.warns(
        UserWarning, match="after 5 optimizer steps, before the last choice of what to prune, at step 10"
    ):
        fit(seeded(), pruner, Stop())
    assert not pruner.is_final


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ADMMPruning(1.2), "expected sparsity in [0, 1), got 1.2"),
        (lambda: ADMMPruning(), "expected a sparsity in [0, 1) for granularity Element(), got None"),
        (lambda: ADMMPruning(0.5, rho=0), "expected rho in (0, inf), got 0"),
        (lambda: ADMMPruning(0.5, rho=-0.1), "expected rho in (0, inf), got -0.1"),
        (lambda: ADMMPruning(0.5, rho_max=math.inf), "expected rho_max in (0, inf), got inf"),
        (lambda: ADMMPruning(0.5, rho=0.1, rho_max=0.01), "expected rho_max of at least rho=0.1, got 0.01"),
        (lambda: ADMMPruning(0.5, every=-1), "expected every in optimizer steps"),
        (lambda: ADMMPruning(0.5, connectivity=1.0), "expected connectivity in [0, 1), got 1.0"),
        (lambda: ADMMPruning(0.5, mine=8), "expected granularity Pattern() for mine=8, got Element(); leave one out"),
        (
            lambda: ADMMPruning(granularity=Pattern(), mine=57),
            "expected mine, the patterns to take of the 56 with a centre, to be a whole number in 1..56, got 57",
        ),
        (
            lambda: ADMMPruning(0.5, granularity="element"),
            "expected granularity to be a Granularity such as Element(), got 'element'",
        ),  # type: ignore[arg-type]
        (
            lambda: ADMMPruning(0.5, skip="first"),
            "expected skip to be a list of 'first', 'last', 'depthwise' and patterns of layer names, got 'first'",
        ),  # type: ignore[arg-type]
        (
            lambda: ADMMPruning({"a": 0.5}, scope="erdos_renyi_kernel"),
            "expected one sparsity for scope='erdos_renyi_kernel'",
        ),
    ],
)
def test_bad_arguments_are_refused_at_once(build: Callable[[], ADMMPruning], message: str) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


class Wide(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.body[0] = nn.Conv2d(8, 12, 5, padding=2).double()


class Dense(Foreign):
    def __init__(self) -> None:
        super().__init__()
        self.stem = self.body = self.point = nn.Identity()  # type: ignore[assignment]
        self.out = nn.Linear(2, 3).double()


class Manual(Foreign):
    automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "build", "message"),
    [
        (
            Foreign,
            lambda: ADMMPruning(0.5, begin=0.6, end=0.5),
            "expected begin not after end, got begin=12 and end=10 optimizer steps",
        ),
        (Foreign, lambda: ADMMPruning(0.5, end=30), "expected end within the 20 optimizer steps of this run, got 30"),
        (
            Wide,
            lambda: ADMMPruning(granularity=Pattern(), uncut="refuse"),
            "body.0: expected 3x3 kernels for patterns, got shape (12, 8, 5, 5): leave the layer out",
        ),
        (
            Dense,
            lambda: ADMMPruning(0.5, connectivity=0.5, skip=[]),
            "expected a model with layers that Kernel(per_filter=True) can prune, found none",
        ),
        (
            Foreign,
            lambda: ADMMPruning({"layer9.*": 0.5}),
            "expected sparsity[layer9.*] to match a prunable layer that trains, got no match among body.0, ",
        ),
        (
            Foreign,
            lambda: ADMMPruning(0.5, granularity=Channel(residual="independent"), scope="erdos_renyi_kernel"),
            "expected scope='layer' or 'global' for channels",
        ),
        (Manual, lambda: ADMMPruning(0.5), "expected a module with automatic optimization, got Manual"),
    ],
)
def test_what_does_not_fit_the_run_is_refused_before_training(
    module: type[Foreign], build: Callable[[], ADMMPruning], message: str
) -> None:
    built = module()
    built.example_input_array = next(iter(data()))[0][:2]
    before = copy.deepcopy(built.state_dict())
    with pytest.raises(InputError) as caught:
        fit(built, build())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert "training_step" not in vars(built)
    assert all(torch.equal(tensor, before[name]) for name, tensor in built.state_dict().items())
