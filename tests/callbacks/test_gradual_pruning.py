"""GradualPruning against independent implementations, numbers worked by hand and the published integers."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import GradualPruning, SoftFilterPruning, slim
from lightning_prune.errors import InputError
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.criteria.apoz import APoZ
from lightning_prune.pruning.criteria.batch_norm_scale import BatchNormScale
from lightning_prune.pruning.criteria.gate_taylor import GateTaylor
from lightning_prune.pruning.criteria.lamp import LAMP
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.criteria.movement import Movement
from lightning_prune.pruning.criteria.optimal_brain_damage import OptimalBrainDamage
from lightning_prune.pruning.criteria.taylor import Taylor
from lightning_prune.pruning.goal import Goal
from lightning_prune.pruning.gradient_scores import second_order
from lightning_prune.pruning.granularities.block import Block
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.granularities.pattern import SCP4, Pattern
from lightning_prune.pruning.granularities.vector import Vector
from lightning_prune.pruning.quota import erdos_renyi_kernel
from lightning_prune.pruning.schedules.cubic import Cubic
from lightning_prune.pruning.schedules.iterative import Iterative
from lightning_prune.pruning.schedules.one_shot import OneShot
from lightning_prune.training.process_agreement import check_agreement
from lightning_prune.training.timeline import Timeline

BATCHES = 10


class Net(LightningModule):
    """Three convolutions and a linear layer on images of 8 x 8."""

    def __init__(self, optimizer: str = "sgd", norm: bool = True) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.middle = nn.Conv2d(8, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.last(F.relu(self.middle(x))))
        return self.head(x.mean((2, 3)))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        if self.optimizer == "adam":
            return torch.optim.Adam(self.parameters(), lr=1e-2)
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)}


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(BATCHES * 4, 3, 8, 8, generator=generator)
    return DataLoader(TensorDataset(images, torch.randint(4, (len(images),), generator=generator)), batch_size=4)


def fitted(*callbacks: Callback, module: LightningModule | None = None, **settings: Any) -> LightningModule:
    torch.manual_seed(0)
    module = module or Net()
    quiet_trainer(*callbacks, **settings).fit(module, data())
    return module


class Record(Callback):
    """Keep the weights after every batch, and the optimizer's running averages."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.momenta: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        (optimizer,) = trainer.optimizers
        self.weights.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})
        averages = {}
        for name, p in pl_module.named_parameters():
            state = optimizer.state.get(p, {})
            averages[name] = state.get("momentum_buffer", state.get("exp_avg", torch.zeros_like(p))).clone()
        self.momenta.append(averages)
        self.rates.append(optimizer.param_groups[0]["lr"])

    def zeros(self, name: str) -> list[int]:
        return [int((weights[name] == 0).sum()) for weights in self.weights]


# The schedule ---------------------------------------------------------------------------------------------------------


def test_every_step_has_exactly_the_zeros_of_the_cubic_schedule() -> None:
    record = Record()
    fitted(GradualPruning(0.9, begin=3, end=15, every=4), record)
    n = 16 * 8 * 9
    wanted, current = [], 0
    for step in range(1, 21):
        if step in (3, 7, 11, 15):
            current = round(n * (0.9 - 0.9 * (1 - (step - 3) / 12) ** 3))
        wanted.append(current)
    assert record.zeros("middle.weight") == wanted
    assert record.zeros("stem.weight") == [0] * 20  # the first layer is skipped
    assert record.zeros("middle.bias") == [0] * 20


def test_masks_only_grow_and_hold_weights_and_momentum() -> None:
    for optimizer in ("sgd", "adam"):
        record = Record()
        fitted(GradualPruning(0.8, begin=0.1, end=0.6, every=2), record, module=Net(optimizer))
        for before, after in pairwise(record.weights):
            assert ((before["last.weight"] == 0) <= (after["last.weight"] == 0)).all()
        for weights, momenta in zip(record.weights, record.momenta, strict=True):
            zero = weights["last.weight"] == 0
            assert (momenta["last.weight"][zero] == 0).all()
        assert record.zeros("last.weight")[-1] == round(0.8 * 12 * 16 * 9)


def test_gradient_accumulation_counts_optimizer_steps() -> None:
    record = Record()
    fitted(GradualPruning(0.5, begin=2, end=4, every=1, schedule=OneShot()), record, accumulate_grad_batches=3)
    zeros = record.zeros("head.weight")
    assert zeros[:5] == [0] * 5  # five batches are one step
    assert zeros[5:] == [24] * 15


def test_an_end_off_the_grid_still_gets_its_choice() -> None:
    assert [Timeline(0, 7, 3).choices(step) for step in range(-1, 9)] == [0, 1, 1, 1, 2, 2, 2, 3, 4, 4]
    for timeline in (Timeline(5, 5, 3), Timeline(0, 100, 7), Timeline(3, 10, 100)):
        moments = [s for s in range(101) if timeline.choices(s) > timeline.choices(s - 1)]
        assert moments == sorted({*range(timeline.begin, timeline.end, timeline.every), timeline.end})
        for step in range(101):
            assert timeline.upcoming(step) == next((m for m in moments if m >= step), None)


def test_fractions_of_the_run_are_steps() -> None:
    one, two = Record(), Record()
    fitted(GradualPruning(0.9, begin=0.25, end=0.75, every=0.1), one)
    fitted(GradualPruning(0.9, begin=5, end=15, every=2), two)
    assert one.zeros("last.weight") == two.zeros("last.weight")


def test_soft_pruning_lets_weights_grow_back_until_its_end() -> None:
    record = Record()
    callback = GradualPruning(0.5, begin=2, end=10, every=4, schedule=OneShot(), soft=True)
    fitted(callback, record)
    zeros = record.zeros("last.weight")
    half = 12 * 16 * 9 // 2
    assert zeros[1] == zeros[5] == half
    assert zeros[2] < half
    assert zeros[9:] == [half] * 11
    assert callback.is_final


# The choice -----------------------------------------------------------------------------------------------------------


def pruned_at_once(granularity: Any = None, **options: Any) -> tuple[LightningModule, LightningModule]:
    """Return a module, and the same after pruning before its first and only step, at learning rate 0."""
    torch.manual_seed(1)
    module = Net()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)  # type: ignore[method-assign]
    before = copy.deepcopy(module)
    options = {"begin": 0, "end": 0, "skip": (), **options}
    quiet_trainer(GradualPruning(granularity=granularity, **options), max_epochs=1, limit_train_batches=1).fit(
        module, data()
    )
    return before, module


WEIGHTS = ("stem", "middle", "last", "head")


def test_layer_scope_is_that_of_torch() -> None:
    before, after = pruned_at_once(sparsity=0.7)
    for name in WEIGHTS:
        torch_prune.l1_unstructured(before.get_submodule(name), "weight", 0.7)
        assert torch.equal(before.get_submodule(name).weight, after.get_submodule(name).weight)


def test_global_scope_is_that_of_torch() -> None:
    before, after = pruned_at_once(sparsity=0.4, scope="global")
    layers = [(before.get_submodule(name), "weight") for name in WEIGHTS]
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=0.4)
    for name in WEIGHTS:
        assert torch.equal(before.get_submodule(name).weight, after.get_submodule(name).weight)


def test_filters_without_coupling_are_those_of_torch() -> None:
    before, after = pruned_at_once(Channel(residual="independent"), sparsity=0.5)
    for name in ("stem", "middle", "last"):
        torch_prune.ln_structured(before.get_submodule(name), "weight", 0.5, n=2, dim=0)
        assert torch.equal(before.get_submodule(name).weight, after.get_submodule(name).weight)


def test_input_channels_go_with_what_writes_them() -> None:
    before, after = pruned_at_once(Channel(dim=1), sparsity=0.5)
    norms = before.middle.weight.detach().square().sum((0, 2, 3))
    gone = norms.argsort()[:4]
    assert (after.middle.weight[:, gone] == 0).all()
    assert (after.stem.weight[gone] == 0).all()
    assert (after.norm.bias[gone] == 0).all()
    assert (after.norm.weight == 0).sum() == 4
    assert slim(after.eval(), torch.randn(2, 3, 8, 8)).stem.out_channels == 4


@pytest.mark.parametrize("granularity", [Kernel(), Kernel(per_filter=True), Block(4, 4), Vector(), Vector(dim=-2)])
def test_whole_units_go_and_their_number_is_exact(granularity: Any) -> None:
    _, after = pruned_at_once(granularity, sparsity=0.55)
    for name in ("middle", "last"):
        units = granularity.units(after.get_submodule(name).weight.detach())
        gone = (units == 0).all(dim=1)
        assert ((units == 0).any(dim=1) == gone).all()
        runs = granularity.runs(after.get_submodule(name).weight.shape)
        assert gone.view(runs, -1).sum(dim=1).tolist() == [round(0.55 * len(gone) / runs)] * runs


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 4)])
def test_n_of_m_input_channels_stay_also_by_and_by(n: int, m: int) -> None:
    record = Record()
    module = fitted(GradualPruning(granularity=NM(n, m), begin=2, end=12, every=2), record)
    for name in ("middle", "last"):
        kept = (module.get_submodule(name).weight != 0).permute(2, 3, 0, 1).reshape(-1, m).sum(dim=1)
        assert (kept == n).all()
    zeros = record.zeros("last.weight")
    assert zeros[11] == round((1 - n / m) * 12 * 16 * 9)
    assert 0 < zeros[3] < zeros[7] < zeros[11]
    assert (module.stem.weight != 0).all()  # three channels do not fall into groups


def test_patterns_by_and_by_are_patterns_in_the_end() -> None:
    record = Record()
    module = fitted(GradualPruning(granularity=Pattern(), begin=2, end=12, every=2), record)
    for weight in (module.middle.weight, module.last.weight):
        for kernel in (weight.detach() != 0).reshape(-1, 9):
            assert tuple(kernel.nonzero().reshape(-1).tolist()) in SCP4
    assert 0 < record.zeros("last.weight")[3] < record.zeros("last.weight")[11]


def test_patterns_and_kernels_combine() -> None:
    patterns = GradualPruning(granularity=Pattern(), begin=2, end=8, every=2)
    kernels = GradualPruning(0.6, granularity=Kernel(), begin=4, end=12, every=2)
    module = fitted(patterns, kernels)
    histogram = Pattern().histogram([module.middle.weight, module.last.weight])
    assert histogram.others == 0
    assert histogram.removed == round(0.6 * 8 * 16) + round(0.6 * 16 * 12)


def test_filters_and_weights_combine() -> None:
    module = fitted(SoftFilterPruning(0.5), GradualPruning(0.8, begin=2, end=8), max_epochs=4)
    small = slim(module, torch.randn(2, 3, 8, 8))
    assert small.middle.out_channels == 8
    assert (module.middle.weight == 0).float().mean() > 0.8


def test_each_layer_can_have_its_own_sparsity() -> None:
    _, after = pruned_at_once(sparsity={"head": 0.25, "last": 0.0, "*": 0.5})
    shares = [(after.get_submodule(name).weight == 0).float().mean().item() for name in WEIGHTS]
    assert shares == [0.5, 0.5, 0.0, 0.25]


def competing(model: nn.Module, sparsity: float, *args: Any, **options: Any) -> Competition:
    competition = Goal(Element(), sparsity, *args, **options).find(model)
    assert competition is not None
    return competition


def test_the_floor_keeps_every_layer_alive_and_the_count_exact() -> None:
    torch.manual_seed(0)
    module = Net()
    with torch.no_grad():
        module.last.weight *= 1e-6
    weights = dict(module.named_parameters())
    competition = competing(module, 0.8, "global", floor=0.1)
    masks = competition.choose(Magnitude(), weights)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert kept["last.weight"] == math.ceil(0.1 * 12 * 16 * 9)
    sizes = sum(one.size for one in competition.prunables)
    assert sum(kept.values()) == sizes - round(0.8 * sizes)
    with pytest.raises(InputError, match=r"expected sparsity of at most 0\.79"):
        competing(module, 0.9, "global", floor=0.2).choose(Magnitude(), weights)


def test_lamp_in_global_scope_is_the_paper_s_sum() -> None:
    before, after = pruned_at_once(sparsity=0.8, scope="global", criterion=LAMP(), floor=0.0)
    scores = []
    for name in WEIGHTS:
        squares = before.get_submodule(name).weight.detach().double().square().reshape(-1)
        scores.append(torch.stack([w / squares[squares >= w].sum() for w in squares]))
    flat = torch.cat(scores)
    number = round(0.8 * len(flat))
    gone = torch.zeros(len(flat), dtype=torch.bool)
    gone[flat.argsort()[:number]] = True
    found = torch.cat([after.get_submodule(name).weight.detach().reshape(-1) == 0 for name in WEIGHTS])
    assert (gone != found).sum() <= 2  # float32 against float64 at the threshold
    assert found.sum() == number


def test_mobilenet_keeps_the_published_number_of_weights() -> None:
    # Zhu and Gupta's counts come out with the first and the depthwise convolutions dense (4,209,088 weights in all).
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, bias=False)]
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    for width, out in pairwise(widths):
        layers += [nn.Conv2d(width, width, 3, groups=width, bias=False), nn.Conv2d(width, out, 1, bias=False)]
    model: Any = nn.Sequential(*layers, nn.Linear(1024, 1000))
    assert sum(one.size for one in competing(model, 0.5).prunables) == 4_209_088
    weights = dict(model.named_parameters())
    for sparsity, published in ((0.5, 2_127_296), (0.75, 1_086_400), (0.9, 461_862), (0.95, 253_683)):
        competition = competing(model, sparsity, skip=("first", "depthwise"))
        assert sum(one.size for one in competition.prunables) == 4_163_584
        masks = competition.choose(Magnitude(), weights)
        assert abs(sum(int(mask.sum()) for mask in masks.values()) + 44_640 + 864 - published) <= len(masks)


def test_erdos_renyi_kernel_meets_the_budget() -> None:
    shapes = [(64, 3, 3, 3), (64, 64, 3, 3), (256, 64, 3, 3), (10, 256)]
    sparsities = erdos_renyi_kernel(shapes, 0.9)
    sizes = [math.prod(shape) for shape in shapes]
    kept = sum((1 - s) * n for s, n in zip(sparsities, sizes, strict=True))
    assert kept == pytest.approx(0.1 * sum(sizes))
    assert sparsities[0] == 0.0  # too small to be pruned at all
    ratio = (1 - sparsities[1]) / (1 - sparsities[2])
    assert ratio == pytest.approx((134 / sizes[1]) / (326 / sizes[2]))
    _, after = pruned_at_once(sparsity=0.8, scope="erdos_renyi_kernel")
    assert sum(int((after.get_submodule(n).weight == 0).sum()) for n in WEIGHTS) == pytest.approx(0.8 * 3144, abs=2)


# Criteria that look at more than weights ------------------------------------------------------------------------------


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
        0.5, granularity=Channel(), criterion=APoZ(), begin=1, end=1, gather=1, skip=(), example_input=batches[0]
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


# Rewinding ------------------------------------------------------------------------------------------------------------


def test_a_lottery_ticket_goes_back_to_its_early_weights() -> None:
    record = Record()
    callback = GradualPruning(
        1 - 0.8**3,
        schedule=Iterative(3),
        scope="global",
        begin=5,
        end=15,
        every=5,
        skip=(),
        rewind="weights",
        rewind_to=2,
    )
    fitted(callback, record)
    total = 3144
    names = [f"{name}.weight" for name in WEIGHTS]
    for step, density in ((5, 0.8), (10, 0.64), (15, 0.512)):
        weights = record.weights[step - 1]
        kept = sum(int((weights[name] != 0).sum()) for name in names)
        assert kept == pytest.approx(density * total, abs=1)
        for name in names:
            alive = weights[name] != 0
            assert torch.equal(weights[name][alive], record.weights[1][name][alive])
        assert torch.equal(weights["norm.bias"], record.weights[1]["norm.bias"])
        alive = weights["last.weight"] != 0
        assert torch.equal(
            record.momenta[step - 1]["last.weight"], torch.where(alive, record.momenta[1]["last.weight"], 0.0)
        )


def test_the_learning_rate_alone_goes_back() -> None:
    record = Record()
    callback = GradualPruning(
        0.5, schedule=Iterative(2), begin=15, end=25, every=10, rewind="learning_rate", rewind_to=1
    )
    fitted(callback, record, max_epochs=4)
    rates = [0.05] * 9 + [0.045] * 5 + [0.05] * 5 + [0.045] * 5 + [0.05] * 5
    assert record.rates[:29] == pytest.approx(rates)
    changed = (record.weights[14]["middle.bias"] - record.weights[0]["middle.bias"]).abs().max()
    assert changed > 1e-3
    assert (record.momenta[14]["middle.bias"] == 0).all()


# State ----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(
    "options",
    [
        {"criterion": Taylor(), "gather": 5},
        {"criterion": Movement()},
        {"criterion": OptimalBrainDamage(), "gather": 5},
        {"criterion": APoZ(), "granularity": Channel(), "gather": 5},
        {"granularity": Pattern(), "sparsity": None},
        {"schedule": Iterative(3), "rewind": "weights", "rewind_to": 1},
    ],
    ids=lambda options: next(iter(options)) + str(next(iter(options.values()))),
)
def test_a_run_resumes_within_a_window_to_the_same_bits(options: dict[str, Any], tmp_path: Path) -> None:
    # The checkpoint after 20 of 40 steps falls within the gathering before the choice at step 24.
    options = {"sparsity": 0.6, "begin": 12, "end": 36, "every": 12, **options}
    whole = fitted(GradualPruning(**options), max_epochs=4)
    checkpoint = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1)
    fitted(GradualPruning(**options), checkpoint, max_epochs=4)
    module = Net()
    quiet_trainer(GradualPruning(**options), ModelCheckpoint(tmp_path), max_epochs=4).fit(
        module, data(), ckpt_path=tmp_path / "step=20.ckpt", weights_only=True
    )
    for name, tensor in whole.state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name


def test_two_prunings_in_one_run_keep_their_states_apart() -> None:
    one, two = GradualPruning(granularity=Pattern()), GradualPruning(0.5, granularity=Kernel())
    assert one.state_key != two.state_key


@pytest.mark.filterwarnings("ignore")
def test_processes_that_disagree_fail_loudly(tmp_path: Path) -> None:
    quiet_trainer(Disagree(tmp_path), devices=2, strategy="ddp_spawn", max_epochs=1, limit_train_batches=1).fit(
        Net(), data()
    )
    assert {file.name for file in tmp_path.iterdir()} == {"0", "1"}


class Disagree(Callback):
    """Compare masks that are the same in both processes, then masks that differ; a file says which process is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        masks = {"a": torch.tensor([True, False]), "b": torch.ones(3, dtype=torch.bool)}
        check_agreement(trainer, masks)
        masks["b"] = torch.tensor([True, True, trainer.global_rank == 0])
        with pytest.raises(RuntimeError, match="got different ones of b"):
            check_agreement(trainer, masks)
        (self.folder / str(trainer.global_rank)).touch()


# What is refused ------------------------------------------------------------------------------------------------------


def test_a_further_fit_goes_on_with_the_masks() -> None:
    for same in (True, False):
        callback, record = GradualPruning(0.8), Record()
        module = fitted(callback)
        gone = module.last.weight == 0
        fit = quiet_trainer(callback, record, max_epochs=2)
        if same:
            fit.fit(module, data())
            fit.fit_loop.max_epochs = 4
        fit.fit(module, data())
        assert callback.is_final
        assert all(torch.equal(weights["last.weight"] == 0, gone) for weights in record.weights)
        other = Net()
        quiet_trainer(callback, max_epochs=2, limit_train_batches=1, fast_dev_run=True).fit(other, data())
        assert (other.last.weight != 0).any()  # masks of one module are not those of another


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_layers_that_no_longer_compete_stay_pruned(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path, "first")
    module = fitted(GradualPruning(0.5, begin=2, end=4, skip=()), checkpoint)
    gone = module.stem.weight == 0
    again = Net()
    callback = GradualPruning(0.8, begin=25, end=30)
    quiet_trainer(callback, checkpoint, max_epochs=4).fit(
        again, data(), ckpt_path=tmp_path / "first.ckpt", weights_only=True
    )
    assert torch.equal(again.stem.weight == 0, gone)


def test_averaged_weights_meet_the_masks_before_batch_norm_does() -> None:
    class Check(Callback):
        sparsities: list[float]

        def __init__(self) -> None:
            self.sparsities = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.sparsities.append(float((pl_module.last.weight == 0).float().mean()))

    check = Check()
    averaging = StochasticWeightAveraging(5e-2, swa_epoch_start=0.2)
    fitted(GradualPruning(0.9, end=0.5), averaging, check, max_epochs=5)
    assert min(check.sparsities[-BATCHES * 2 :]) == pytest.approx(0.9, abs=1e-3)  # with the epoch for batch norm


@pytest.mark.parametrize("criterion", [Magnitude(), Taylor(), Movement()])
def test_a_run_of_one_step_has_a_beginning_and_an_end(criterion: Any) -> None:
    module = fitted(GradualPruning(0.5, criterion=criterion), max_epochs=1, limit_train_batches=1)
    assert (module.last.weight == 0).float().mean() == 0.5
    fitted(GradualPruning(0.5, criterion=criterion, begin=100, end=200), fast_dev_run=True)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GradualPruning(1.2), r"expected sparsity in \[0, 1\), got 1.2"),
        (lambda: GradualPruning(), "expected a sparsity in .* for granularity Element"),
        (lambda: GradualPruning(0.4, granularity=NM(2, 4)), r"expected sparsity 0.5 for NM\(n=2, m=4\)"),
        (lambda: GradualPruning(0.4, granularity="n_m"), "expected granularity to be a Granularity, got 'n_m'"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, criterion="l1"), "expected criterion to be a Criterion, got 'l1'"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, schedule="cubic"), "expected schedule to be a function"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, scope="all"), "scope to be one of layer, global, erdos"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, begin=1.5), r"begin in optimizer steps .* got 1.5"),
        (lambda: GradualPruning(0.4, every=-1), "every in optimizer steps .* got -1"),
        (lambda: GradualPruning(0.4, end=True), "end in optimizer steps .* got True"),
        (lambda: GradualPruning(0.4, floor=1.0), r"floor in \[0, 1\), got 1.0"),
        (lambda: GradualPruning(0.4, gather=0), "gather to be a whole number of at least 1, got 0"),
        (lambda: GradualPruning(0.4, skip=("fist",)), "skip to be one of first, last, depthwise, got 'fist'"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, skip="first"), "skip to be a list"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, rewind="lr"), "rewind to be one of weights, learning_rate, got 'lr'"),  # type: ignore[arg-type]
        (lambda: GradualPruning(0.4, criterion=Mix(), scope="global"), "scope='layer' for Mix"),
        (lambda: GradualPruning({"*": 0.4}, scope="erdos_renyi_kernel"), "one sparsity for scope"),
    ],
)
def test_bad_arguments_are_refused_with_one_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": 15, "end": 10}, "begin not after end, got begin=15 and end=10"),
        ({"end": 21}, "end within the 20 optimizer steps of this run, got 21"),
        ({"schedule": lambda p, final: final / 2}, "reaches sparsity 0.5 at its end"),
        ({"criterion": Taylor(), "begin": 0}, "begin of at least 1 optimizer step for Taylor"),
        ({"criterion": APoZ()}, r"granularity Channel\(\)"),
        ({"criterion": BatchNormScale()}, r"granularity Channel\(\)"),
        ({"criterion": BatchNormScale(), "granularity": Channel()}, "expected middle to have a scale"),
        (
            {"granularity": Vector(5)},
            "found none; skip=.* leaves out stem; middle: expected a vector length",
        ),
        ({"granularity": Channel(dim=2)}, r"expected Channel\(dim=0\) for filters"),
        ({"granularity": NM(2, 4), "sparsity": None, "uncut": "refuse", "skip": ()}, "stem: expected input channels"),
        ({"granularity": Pattern(), "sparsity": None, "uncut": "refuse"}, "head: expected 3x3 kernels"),
        ({"sparsity": {"nowhere": 0.5}}, r"sparsity\[nowhere\] to match a prunable layer"),
        ({"scope": "global", "floor": 0.6}, r"at most 0.3996, so that every layer keeps a fraction floor=0.6"),
        ({"rewind": "weights", "rewind_to": 8}, "rewind_to not after begin=2 optimizer steps, got 8"),
        (
            {"granularity": Channel(), "scope": "erdos_renyi_kernel"},
            "scope='layer' or 'global' for channels",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(options: dict[str, Any], message: str) -> None:
    record = Record()
    options = {"sparsity": 0.5, **options}
    with pytest.raises(InputError, match=message) as caught:
        fitted(GradualPruning(example_input=torch.zeros(2, 3, 8, 8), **options), record)
    assert "\n" not in str(caught.value)
    assert not record.weights


def test_activations_that_do_not_exist_are_refused() -> None:
    class Linear(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.last(self.middle(self.norm(self.stem(x)))).mean((2, 3)))

    callback = GradualPruning(0.5, granularity=Channel(), criterion=APoZ(), example_input=torch.zeros(2, 3, 8, 8))
    with pytest.raises(InputError, match="expected an activation function behind middle"):
        fitted(callback, module=Linear())


def test_a_run_that_ends_early_says_so() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
            trainer.should_stop = trainer.global_step >= 5

    with pytest.warns(UserWarning, match="ended after 5 optimizer steps, before the last choice of what .* at step 18"):
        fitted(GradualPruning(0.5, end=0.9), Stop())


def test_a_sparsity_that_removes_nothing_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="Sparsity 0.01 removes no unit of any layer"):
        fitted(GradualPruning(0.01, granularity=Channel(), example_input=torch.zeros(2, 3, 8, 8)))


def test_a_rate_that_is_too_low_at_the_end_is_warned_of() -> None:
    class Low(Net):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.01)}

    with pytest.warns(UserWarning, match="may not recover"):
        fitted(GradualPruning(0.5, end=0.9), module=Low())


def test_a_schedule_may_start_above_zero() -> None:
    record = Record()
    fitted(GradualPruning(0.8, schedule=Cubic(initial=0.05), begin=1, end=20, every=5), record)
    assert record.zeros("head.weight")[0] == round(0.05 * 48)
