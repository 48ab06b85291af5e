"""What goes: against torch's own pruning, published counts, and by hand."""

import copy
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from gradual_net import WEIGHTS, Net, Record, data, fitted
from lightning.pytorch import LightningModule
from quiet_trainer import quiet_trainer
from torch import nn
from torch.nn.utils import prune as torch_prune

from lightning_prune import GradualPruning, SoftFilterPruning, slim
from lightning_prune.errors import InputError
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.criteria.lamp import LAMP
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.goal import Goal
from lightning_prune.pruning.granularities.block import Block
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.granularities.pattern import SCP4, Pattern
from lightning_prune.pruning.granularities.vector import Vector
from lightning_prune.pruning.quota import erdos_renyi_kernel


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
