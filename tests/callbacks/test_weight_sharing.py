"""K-means on a line, centroids that train, and runs in which weights share values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.plugins.precision import MixedPrecision
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GradualPruning, QuantizationAwareTraining
from lightning_prune.callbacks.weight_sharing import WeightSharing
from lightning_prune.errors import InputError
from lightning_prune.export.packed import packed_sizes, read_packed, write_packed
from lightning_prune.pruning.shared_weights import (
    SharedWeights,
    cluster,
    cluster_sums,
    initial_centroids,
    k_means,
    nearest_centroid,
)

WEIGHTS = torch.tensor([-1.2, -0.9, 0.05, 0.1, 0.4, 1, 1.1, 2], dtype=torch.float64)
BATCHES = 4


# K-means --------------------------------------------------------------------------------------------------------------


def test_centroids_are_those_of_the_worked_example() -> None:
    begin = initial_centroids(WEIGHTS, 4)
    assert begin.tolist() == pytest.approx([-1.2, -2 / 15, 14 / 15, 2])
    centroids = k_means(WEIGHTS, begin)
    assert centroids.tolist() == pytest.approx([-1.05, 0.55 / 3, 1.05, 2])
    labels = nearest_centroid(WEIGHTS, centroids)
    assert labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 3]
    assert (WEIGHTS - centroids[labels]).square().sum().item() == pytest.approx(0.121667, abs=1e-6)
    assert initial_centroids(WEIGHTS, 4, "density").tolist() == pytest.approx([-0.9375, 0.08125, 0.625, 1.2125])
    drawn = initial_centroids(WEIGHTS, 4, "random")
    assert len(drawn.unique()) == 4
    assert torch.isin(drawn, WEIGHTS).all()


def lloyd(values: Tensor, centroids: Tensor) -> Tensor:
    """Return what k-means ends with, by its definition."""
    while True:
        labels = (values[:, None] - centroids).abs().argmin(dim=1)
        means = [values[labels == i].mean() if (labels == i).any() else old for i, old in enumerate(centroids)]
        if torch.equal(torch.stack(means), centroids):
            return centroids
        centroids = torch.stack(means)


@pytest.mark.parametrize("initialization", ["linear", "density", "random"])
@pytest.mark.parametrize("seed", range(5))
def test_k_means_is_that_of_its_definition(initialization: Any, seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.randn(500, dtype=torch.float64).pow(3).sort().values
    begin = initial_centroids(values, 20, initialization)
    torch.testing.assert_close(k_means(values, begin), lloyd(values, begin), rtol=1e-9, atol=1e-12)


def test_an_empty_cluster_keeps_its_centroid() -> None:
    values = torch.tensor([0.0, 0.1, 10.0], dtype=torch.float64)
    found = k_means(values, torch.tensor([0.0, 4.0, 6.0, 10.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.05, 4.0, 6.0, 10.0])


def test_zeros_have_code_zero_and_others_the_nearest_value() -> None:
    weight = torch.randn(30, 20)
    weight[torch.rand(30, 20) < 0.5] = -0.0
    centroids, codes = cluster(weight, bits=3)
    assert (len(centroids), codes.dtype, codes.shape, int(codes.max())) == (7, torch.uint8, weight.shape, 7)
    assert torch.equal(codes == 0, weight == 0)
    distance = (weight.double().unsqueeze(-1) - centroids).abs()
    kept = weight != 0
    assert torch.equal(codes[kept].long() - 1, distance.argmin(-1)[kept])


@pytest.mark.parametrize("weight", [torch.zeros(3, 3), torch.zeros(0, 3), torch.tensor([[3.4e38, -1.0, 0.0, -1.0]])])
def test_few_different_values_are_clusters_as_they_are(weight: Tensor) -> None:
    centroids, codes = cluster(weight, bits=2)
    assert torch.equal(torch.cat((centroids.new_zeros(1), centroids)).float()[codes.long()], weight)
    with pytest.raises(InputError, match=r"^expected finite weights to cluster, got others in one of shape \(2,\)$"):
        cluster(torch.tensor([1.0, torch.nan]), bits=2)


# Gradients ------------------------------------------------------------------------------------------------------------


def test_the_gradient_of_a_value_is_the_sum_over_its_weights() -> None:
    layer = nn.Linear(20, 10).double()
    x, codes = torch.randn(7, 20, dtype=torch.float64), torch.randint(0, 8, (10, 20), dtype=torch.uint8)
    shared = SharedWeights(layer, {"weight": codes})
    shared.tie()
    assert not layer.weight[codes == 0].any()
    values = torch.tensor([layer.weight[codes == code][0].item() for code in range(8)], dtype=torch.float64)

    def loss(values: Tensor) -> Tensor:
        return F.linear(x, values[codes.long()], layer.bias).pow(3).sum()

    layer(x).pow(3).sum().backward()
    expected = torch.zeros(8, dtype=torch.float64).index_add_(0, codes.long().flatten(), layer.weight.grad.flatten())
    torch.testing.assert_close(cluster_sums(layer.weight.grad, codes)[:8], expected)
    shared.add_gradients(layer.parameters(), rate=1.0)
    for code in range(1, 8):
        step = torch.zeros(8, dtype=torch.float64)
        step[code] = 1e-5
        numeric = (loss(values + step) - loss(values - step)) / 2e-5
        torch.testing.assert_close(layer.weight.grad[codes == code], numeric.expand(int((codes == code).sum())))
    assert not layer.weight.grad[codes == 0].any()


@pytest.mark.parametrize(
    "build",
    [
        lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, 1e-2),
    ],
)
def test_weights_move_as_their_values_would(build: Callable[[Any], torch.optim.Optimizer]) -> None:
    layer, x = nn.Linear(20, 10, bias=False), torch.randn(7, 20)
    codes = torch.randint(1, 8, (10, 20), dtype=torch.uint8)
    shared = SharedWeights(layer, {"weight": codes})
    shared.tie()
    values = nn.Parameter(torch.stack([layer.weight[codes == code][0].detach() for code in range(1, 8)]))
    optimizer, reference = build(layer.parameters()), build([values])
    for _ in range(20):
        for own, weight in ((optimizer, layer.weight), (reference, values[codes.long() - 1])):
            own.zero_grad()
            F.linear(x, weight).pow(2).sum().backward()
        shared.add_gradients(layer.parameters(), rate=1.0)
        optimizer.step()
        shared.tie()
        reference.step()
    torch.testing.assert_close(layer.weight, values[codes.long() - 1])


# Runs -----------------------------------------------------------------------------------------------------------------


class Network(LightningModule):
    def __init__(self, momentum: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 36, 10)
        self.momentum = momentum
        self.example_input_array = torch.zeros(2, 1, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).flatten(1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if not self.momentum:
            return torch.optim.AdamW(self.parameters(), 1e-3)
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, weight_decay=1e-3)


def adam() -> Network:
    """Return the network with an optimizer that remembers more, always with the same weights."""
    torch.manual_seed(0)
    return Network(momentum=False)


def data() -> DataLoader[Any]:
    images = torch.randn(BATCHES * 8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(images, (images.mean((1, 2, 3)) > 0).long()), batch_size=8)


def fitted(*callbacks: Callback, module: Network | None = None, max_epochs: int = 4, **settings: Any) -> Network:
    torch.manual_seed(0)
    module = module or Network()
    quiet_trainer(*callbacks, max_epochs=max_epochs, **settings).fit(module, data(), data())
    return module


def counted(module: Network) -> tuple[int, int]:
    """Return how many values other than zero the two layers have."""
    conv, fc = (len(weight[weight != 0].unique()) for weight in (module.conv.weight, module.fc.weight))
    return conv, fc


def deep_compression(**options: Any) -> list[Callback]:
    return [GradualPruning(0.8, end=0.4, every=1, skip=()), WeightSharing(**{"begin": 0.5, **options})]


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "clipped": {"gradient_clip_val": 0.1},
    "bfloat16": {"precision": "bf16-mixed"},
    "adam": {"module": adam},
    "scaled": {
        "plugins": lambda: MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_after_pruning_layers_have_few_values_which_train(name: str) -> None:
    class Watch(Callback):
        values: list[Tensor] = []  # noqa: RUF012

        def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            self.values.append(pl_module.fc.weight.detach().unique())

    watch = Watch()
    watch.values = []
    settings = {key: value() if callable(value) else value for key, value in SETTINGS[name].items()}
    sharing = WeightSharing(4, begin=0.5)
    module = fitted(GradualPruning(0.8, end=0.4, every=1, skip=()), sharing, watch, **settings)
    # Around zero, where nothing is left, the first centroids are nobody's.
    assert 2 <= counted(module)[0] <= 15
    assert 5 <= counted(module)[1] <= 15
    assert (module.fc.weight == 0).float().mean() == pytest.approx(0.8, abs=1e-3)
    assert not torch.signbit(module.fc.weight[module.fc.weight == 0]).any()
    assert [len(values) > 16 for values in watch.values] == [True, True, False, False, False]
    assert (watch.values[-1] - watch.values[-2]).abs().max() > 1e-5
    assert sharing.report(module) == {"layers": 2, "values": sum(counted(module))}


def test_a_step_that_the_scaler_skips_changes_nothing() -> None:
    class Overflow(Network):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * (torch.inf if self.trainer.global_step > 8 else 1)

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            if trainer.global_step == 9:
                self.weight = pl_module.fc.weight.detach().clone()

    watch = Watch()
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    module = fitted(*deep_compression(), watch, module=Overflow(), plugins=plugin)
    assert torch.equal(module.fc.weight, watch.weight)


def test_a_step_is_that_of_the_mean_unless_a_rate_is_given() -> None:
    def moved(rate: float | None) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        module = Network()
        optimizer = torch.optim.SGD(module.parameters(), 0.1)
        module.configure_optimizers = lambda: optimizer  # type: ignore[method-assign]
        sharing = WeightSharing(2, begin=0, rate=rate)
        taken: list[Tensor] = []

        class Watch(Callback):
            def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
                taken.append(pl_module.fc.weight.detach().clone())

            def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
                taken.append(pl_module.fc.weight.grad.clone())

        fitted(sharing, Watch(), module=module, max_epochs=1, limit_train_batches=1)
        return taken[0], taken[1], module.fc.weight.detach()

    for rate in (None, 1.0, 0.25):
        before, gradient, after = moved(rate)
        for value in before.unique():
            members = gradient[before == value]
            step = members.mean() if rate is None else rate * members.sum()
            torch.testing.assert_close(after[before == value], (value - 0.1 * step).expand(len(members)))


def test_clipping_is_that_of_the_weights_own_gradients() -> None:
    norms = {}
    for sharing in ([], [WeightSharing(begin=0, rate=1.0, bits=8)]):

        class Watch(Callback):
            def on_before_zero_grad(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
                if pl_module.fc.weight.grad is not None:
                    self.norm = pl_module.fc.weight.grad.norm()

        watch = Watch()
        fitted(*sharing, watch, max_epochs=1, gradient_clip_val=1e-3, limit_train_batches=2)
        norms[len(sharing)] = float(watch.norm)
    assert norms[0] <= 1e-3
    assert norms[1] > 1e-3  # sums of about 11 clipped gradients each


def test_it_waits_until_nothing_more_is_pruned(caplog: pytest.LogCaptureFixture) -> None:
    class Watch(Callback):
        finals: list[tuple[bool, bool]] = []  # noqa: RUF012

        def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.finals.append((pruning.is_final, sharing.is_final))

    for order in (1, -1):
        watch, watch.finals = Watch(), []
        pruning, sharing = GradualPruning(0.8, end=0.7, every=1, skip=()), WeightSharing(begin=0.2)
        with caplog.at_level("INFO"):
            module = fitted(*[pruning, sharing][::order], watch)
        assert 15 <= counted(module)[1] <= 31
        assert (False, True) not in watch.finals
        assert watch.finals[-1] == (True, True)
        assert sharing.final_epoch == pytest.approx(0.7 * 4, abs=0.26)
    assert caplog.text.count("WeightSharing waits until GradualPruning will remove no more.") == 2


def test_a_run_that_ends_too_early_says_so() -> None:
    with pytest.warns(UserWarning, match="The run ended before its weights were clustered"):
        fitted(WeightSharing(begin=0.75), Stop())


class Stop(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        trainer.should_stop = trainer.global_step == 8


def test_averaged_weights_share_values_again() -> None:
    class Check(Callback):
        counts: list[int] = []  # noqa: RUF012

        def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.counts.append(counted(pl_module)[1])  # type: ignore[arg-type]

    check, check.counts = Check(), []
    averaging = StochasticWeightAveraging(5e-2, swa_epoch_start=0.2)
    module = fitted(*deep_compression(begin=0.4), averaging, check, max_epochs=5)
    assert 15 <= counted(module)[1] <= 31
    assert max(check.counts[-BATCHES:]) == counted(module)[1]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_killed_run_ends_at_the_same_bits(stop: int, tmp_path: Path) -> None:
    whole = fitted(*deep_compression(), module=adam())
    saving = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    with pytest.raises(SystemExit):
        fitted(*deep_compression(), saving, Interrupt(stop), module=adam())
    module = adam()
    trainer = quiet_trainer(*deep_compression(), saving, max_epochs=4)
    trainer.fit(module, data(), data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


class Interrupt(Callback):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            raise KeyboardInterrupt


def test_a_further_fit_goes_on_with_the_same_clusters() -> None:
    sharing = WeightSharing(begin=0.0)
    module = fitted(sharing)
    codes = sharing.state_dict()["codes"]
    fitted(sharing, module=module, max_epochs=2)
    assert counted(module)[1] == 31
    assert all(torch.equal(codes[name], own) for name, own in sharing.state_dict()["codes"].items())


def test_layers_have_the_bits_that_they_are_given(tmp_path: Path) -> None:
    module = fitted(WeightSharing(begin=0.0, layers={"fc": 3}))
    assert counted(module) == (72, 7)  # no more values than weights in the convolution
    module = fitted(WeightSharing(2, begin=0.0, layers={"f*": None}))
    assert counted(module)[0] == 3
    assert counted(module)[1] > 2000
    write_packed(module, tmp_path / "net.lpz")
    found = read_packed(tmp_path / "net.lpz")["state_dict"]
    assert all(torch.equal(tensor, found[name]) for name, tensor in module.state_dict().items())
    assert packed_sizes(tmp_path / "net.lpz").tensors["state_dict/fc.weight"].raw == 4 * module.fc.weight.numel()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WeightSharing(9), r"^expected bits to be a whole number in 1\.\.8, got 9$"),
        (lambda: WeightSharing(True), r"^expected bits to be a whole number in 1\.\.8, got True$"),
        (lambda: WeightSharing(layers={"fc": 0}), r"^expected layers\[fc\] to be a whole number in 1\.\.8, got 0$"),
        (lambda: WeightSharing(layers=3), r"^expected layers to be a Mapping, got 3$"),  # type: ignore[arg-type]
        (lambda: WeightSharing(initialization="log"), "expected initialization to be one of linear, density, random"),  # type: ignore[arg-type]
        (lambda: WeightSharing(begin=1.5), "expected begin in optimizer steps"),
        (lambda: WeightSharing(rate=0), r"^expected rate in \(0, inf\), got 0$"),
        (lambda: fitted(WeightSharing(layers={"x*": 4})), r"expected layers\[x\*\] to match a layer, got no match"),
        (lambda: fitted(WeightSharing(begin=17)), "expected begin within the 16 optimizer steps of this run, got 17"),
        (
            lambda: fitted(QuantizationAwareTraining(), WeightSharing()),
            "expected WeightSharing without QuantizationAwareTraining beside it: it rounds every weight",
        ),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
