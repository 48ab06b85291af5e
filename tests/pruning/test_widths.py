"""Widths that hardware likes: what stays is a multiple, or all, whoever prunes."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from quiet_trainer import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_prune import ADMMPruning, GradualPruning, NetworkSlimming, SoftFilterPruning, slim
from lightning_prune.errors import InputError
from lightning_prune.models.resnet import resnet20
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.counts import nearest_width
from lightning_prune.pruning.criteria.mix import Mix
from lightning_prune.pruning.finding import channel_prunables
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.prunable_weight import PrunableWeight
from lightning_prune.pruning.quota import Quota, Scope
from lightning_prune.slimming import TracedModel

IMAGES = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Joined(nn.Module):
    """Convolutions of 40, 20 and 6 channels in one concatenation, then a gate of 24 channels made of two halves."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.wide, self.wide_norm = nn.Conv2d(16, 40, 3, padding=1), nn.BatchNorm2d(40)
        self.middle, self.middle_norm = nn.Conv2d(16, 20, 1), nn.BatchNorm2d(20)
        self.narrow, self.narrow_norm = nn.Conv2d(16, 6, 1), nn.BatchNorm2d(6)
        self.halves = nn.Conv2d(66, 48, 1)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem_norm(self.stem(x)))
        parts = [self.wide_norm(self.wide(x)), self.middle_norm(self.middle(x)), self.narrow_norm(self.narrow(x))]
        value, gate = self.halves(F.relu(torch.cat(parts, 1))).chunk(2, 1)
        logits: Tensor = self.head((value * gate.sigmoid()).mean((2, 3)))
        return logits


class Trained(LightningModule):
    """Any network, learning labels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def slimmed(pruner: Callback, network: nn.Module | None = None, epochs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    module = Trained(Joined() if network is None else network)
    quiet_trainer(pruner, max_epochs=epochs).fit(module, loader())
    return slim(module, IMAGES[:2]).network


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, torch.arange(24) % 4), batch_size=4)


def widths(network: nn.Module) -> dict[str, int]:
    return {name: module.out_channels for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


def competing(
    sizes: list[int], sparsity: float, scope: Scope = "layer", floor: float = 0.0, **options: Any
) -> Competition:
    cut = Channel(1, "independent", **options)
    prunables = [PrunableWeight(f"{i}", torch.Size([2, n]), cut) for i, n in enumerate(sizes)]
    return Competition(prunables, [sparsity] * len(sizes), Quota(sparsity, scope, floor))


def kept(masks: dict[str, Tensor]) -> list[list[int]]:
    return [mask.flatten().nonzero().flatten().tolist() for mask in masks.values()]


# Counts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "size", "positions", "expected"),
    [
        ({"round_to": 8}, 64, 1, [8, 16, 24, 32, 40, 48, 56, 64]),
        ({"round_to": 8}, 20, 1, [8, 16, 20]),
        ({"round_to": 8}, 8, 1, [8]),
        ({"round_to": 8}, 6, 1, [6]),
        ({"round_to": 8}, 10, 4, [2, 4, 6, 8, 10]),  # a channel is four filters, in front of a pixel shuffle
        ({"round_to": 8}, 20, 3, [8, 16, 20]),  # 24 and 48 filters
        ({"round_to": 8}, 20, 12, [*range(2, 21, 2)]),  # 24 filters at least
        ({"round_to": 8}, 3, 64, [1, 2, 3]),  # heads of attention
        ({"round_to": 8, "min_width": 20}, 64, 1, [24, 32, 40, 48, 56, 64]),
        ({"round_to": 8, "min_width": 64}, 5, 64, [1, 2, 3, 4, 5]),
        ({"round_to": 8, "min_width": 65}, 5, 64, [2, 3, 4, 5]),
        ({"min_width": 5}, 8, 1, [5, 6, 7, 8]),
        ({"min_width": 9}, 8, 1, [8]),
        ({}, 8, 1, None),
    ],
)
def test_which_widths_may_stay(options: dict[str, int], size: int, positions: int, expected: list[int] | None) -> None:
    assert Channel(**options).widths(size, positions) == expected


def test_the_nearest_width_is_taken_of_two_the_larger() -> None:
    assert [nearest_width([8, 16, 20], n) for n in range(1, 21)] == [8] * 11 + [16] * 6 + [20] * 3
    assert [nearest_width([8, 16, 20], n, least=10) for n in (1, 12, 17, 18)] == [16, 16, 16, 20]
    assert [nearest_width(None, n, least=2) for n in (1, 2, 3)] == [2, 2, 3]


@pytest.mark.parametrize(("sparsity", "expected"), [(0.1, 20), (0.15, 16), (0.4, 16), (0.45, 8), (0.9, 8)])
def test_a_layer_loses_its_lowest_as_many_as_leave_a_width(sparsity: float, expected: int) -> None:
    scores = torch.randperm(20, generator=torch.Generator().manual_seed(1)).float()
    (stays,) = kept(competing([20], sparsity, round_to=8).choose_lowest([scores.clone()]))
    assert stays == sorted(scores.argsort(descending=True)[:expected].tolist())


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.1, [16, 8, 4]),  # of 28 go 3, all of the first: 13 would stay, next to 16
        (0.2, [8, 8, 4]),  # 6 go, of 10 that would stay two more
        (0.3, [8, 8, 4]),  # 8 go, which leaves 8
        (0.35, [8, 8, 4]),  # 10 go, the first would keep 6: its best two of these come back
    ],
)
def test_units_compete_first_and_then_widths_are_rounded(sparsity: float, expected: list[int]) -> None:
    # The third, whose scores are the lowest, is narrower than the multiple: it takes no part.
    first, second, third = torch.arange(16.0), torch.arange(100.0, 108), torch.arange(-4.0, 0)
    competition = competing([16, 8, 4], sparsity, "global", round_to=8)
    found = kept(competition.choose_lowest([first, second, third]))
    assert found == [[*range(16 - expected[0], 16)], [*range(8)], [*range(4)]]


def test_rounding_respects_the_floor_and_the_least_width() -> None:
    scores = [torch.arange(64.0), torch.arange(1000.0, 1064)]

    def both(floor: float, **options: int) -> list[int]:
        return [
            len(own)
            for own in kept(
                competing([64, 64], 0.4, "global", floor, **options).choose_lowest([*map(torch.clone, scores)])
            )
        ]

    assert both(0.0) == [13, 64]  # 51 of 128 go
    assert both(0.3) == [20, 57]
    assert both(0.3, round_to=16) == [32, 64]  # 16 would be under the floor of 20; 57 is next to 64
    assert both(0.0, round_to=16) == [16, 64]
    assert both(0.0, min_width=30) == [30, 47]  # the other makes up for it
    assert both(0.0, round_to=8, min_width=30) == [32, 48]


def test_what_the_floor_forbids_is_still_refused() -> None:
    with pytest.raises(InputError, match=r"expected sparsity of at most 0\.2500, so that every layer keeps"):
        competing([16, 16], 0.4, "global", 0.75, round_to=8).choose_lowest([torch.rand(16), torch.rand(16)])
    with pytest.raises(InputError, match=r"expected sparsity of at most 0\.2500, so that every layer keeps"):
        competing([16, 16], 0.4, "global", 0.75, round_to=8).check()


def test_a_sparsity_that_widths_do_not_allow_is_met_as_nearly_as_they_do() -> None:
    masks = competing([16, 8], 0.9, "global", 0.01, round_to=8).choose_lowest([torch.rand(16), torch.rand(8)])
    assert [len(own) for own in kept(masks)] == [8, 8]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("seed", range(20))
def test_every_width_is_a_multiple_or_whole_and_masks_only_grow(scope: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 70, (5,), generator=generator).tolist()
    round_to, min_width = torch.randint(1, 20, (2,), generator=generator).tolist()
    held: dict[str, Tensor] | None = None
    for sparsity in (0.1, 0.25, 0.3, 0.5, 0.65, 0.8):
        scores = [torch.rand(size, generator=generator) for size in sizes]  # others at every choice
        masks = competing(sizes, sparsity, scope, round_to=round_to, min_width=min_width).choose_lowest(scores, held)
        for size, stays in zip(sizes, map(len, kept(masks)), strict=True):
            assert stays == size or (stays % round_to == 0 and stays >= min_width)
            if scope == "layer" and stays > max(min_width, round_to) + round_to:
                assert abs(stays - size * (1 - sparsity)) <= round_to / 2 + 0.5
        if held:
            assert all((masks[name] <= held[name]).all() for name in masks)
        held = masks


@pytest.mark.parametrize(("sparsity", "expected"), [(0.3, 16), (0.4, 16), (0.55, 8), (0.99, 8), (0.1, 20)])
def test_mixed_criteria_end_in_a_width_and_keep_what_is_gone(sparsity: float, expected: int) -> None:
    units = torch.randn(20, 9, generator=torch.Generator().manual_seed(2))
    gone = torch.zeros(20, dtype=torch.bool)
    gone[[3, 11]] = expected < 20
    prunable = PrunableWeight("w", units.shape, Channel(round_to=8))
    assert prunable.widths == [8, 16, 20]
    competition = Competition([prunable], [sparsity], Quota(sparsity, rounding="floor"))
    pruned = ~competition.choose(Mix(share=0.5), {"w": units}, {"w": ~gone[:, None]})["w"][:, 0]
    assert int((~pruned).sum()) == expected
    assert (pruned | ~gone).all()
    if expected == 16:  # of 0.3: three by norm, of which two are gone, then one more to make it four
        by_norm = units.norm(dim=1).masked_fill(gone, -1).argsort()[:3]
        assert pruned[by_norm].all()


# Models ---------------------------------------------------------------------------------------------------------------


EIGHTS = Channel(round_to=8)
AT_ONCE: dict[str, Any] = {"begin": 2, "end": 2, "skip": ()}


def test_resnet20_has_the_widths_worked_by_hand() -> None:
    # Shortcuts of zeros tie the 16 channels of the first stage to 16 of 32 of the second, these to 32 of 64 of the
    # third: groups of 16, 16 and 32, beside 16, 32 and 64 inside the blocks. 0.4 leaves 10, 19 and 38.
    small = slimmed(GradualPruning(0.4, granularity=EIGHTS, **AT_ONCE), resnet20(4), epochs=1)
    inner = (8, 16, 40)
    for name, width in widths(small).items():
        stage = int(name[5]) - 1 if name.startswith("layer") else 0
        stream = (8, 8 + 8, 8 + 8 + 16)
        assert width == (inner if name.endswith(".conv1") else stream)[stage], name


@pytest.mark.parametrize(
    "pruner",
    [
        SoftFilterPruning(0.4, round_to=8),
        GradualPruning(0.4, granularity=EIGHTS, begin=2, end=5, every=1, skip=()),
        GradualPruning(0.4, granularity=EIGHTS, begin=2, end=5, every=1, skip=(), criterion=Mix()),
        ADMMPruning(0.4, granularity=EIGHTS, begin=2, end=5, every=1, skip=()),
    ],
    ids=["sfp", "gmp", "mix", "admm"],
)
def test_every_method_leaves_the_same_widths(pruner: Callback) -> None:
    small = slimmed(pruner)
    # 0.6 of 16 are next to 8, of 40 to 24, of 20 to 16; of 24 they are next to 16, which are 32 filters of two halves.
    assert widths(small) == {"stem": 8, "wide": 24, "middle": 16, "narrow": 6, "halves": 32}
    assert (small.halves.in_channels, small.head.in_features) == (24 + 16 + 6, 16)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (Channel(round_to=8, min_width=12), {"stem": 16, "wide": 24, "middle": 16, "narrow": 6, "halves": 32}),
        (Channel(round_to=16), {"stem": 16, "wide": 32, "middle": 16, "narrow": 6, "halves": 32}),
        (Channel(min_width=25), {"stem": 16, "wide": 25, "middle": 20, "narrow": 6, "halves": 28}),
    ],
)
def test_layers_keep_the_least_width_in_multiples(channels: Channel, expected: dict[str, int]) -> None:
    assert widths(slimmed(GradualPruning(0.4, granularity=channels, **AT_ONCE), epochs=1)) == expected


def test_slimming_rounds_after_all_layers_have_competed() -> None:
    network = Joined()
    for norm, low in ((network.wide_norm, 0.01), (network.middle_norm, 1.0), (network.narrow_norm, 0.001)):
        norm.weight.data = low + torch.arange(len(norm.weight)) / 1000
    # Of 82 scales go 33: 13 of the wide one would stay, and none of the narrow one, which takes no part.
    slimming = NetworkSlimming(0.4, prune_at=0, strength=0, residual="coupled", round_to=8)
    assert widths(slimmed(slimming, network, epochs=1)) == {
        "stem": 16,
        "wide": 8,
        "middle": 20,
        "narrow": 6,
        "halves": 48,
    }


def test_layers_of_their_own_sparsity_and_skipped_layers_keep_theirs() -> None:
    sparsity = {"*wide": 0.5, "*middle": 0.0, "*": 0.25}
    pruner = GradualPruning(sparsity, granularity=EIGHTS, begin=0, end=0)
    # The first layer is skipped; half of 40 are 20, between 16 and 24; three quarters of 24 are 18, 36 filters.
    assert widths(slimmed(pruner, epochs=1)) == {"stem": 16, "wide": 24, "middle": 20, "narrow": 6, "halves": 40}


def test_gradual_pruning_goes_from_width_to_width() -> None:
    class Record(Callback):
        def __init__(self) -> None:
            self.kept: list[int] = []

        def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
            self.kept.append(int((pl_module.network.wide.weight.detach().flatten(1) != 0).any(1).sum()))

    record = Record()
    pruner = GradualPruning(0.7, granularity=Channel(round_to=8), begin=0, end=10, every=1, skip=())
    torch.manual_seed(0)
    quiet_trainer(pruner, record, max_epochs=2).fit(Trained(Joined()), loader())
    exact = [40 - round(40 * 0.7 * (1 - (1 - step / 10) ** 3)) for step in range(1, 11)]
    assert record.kept == [min((8, 16, 24, 32, 40), key=lambda n: (abs(n - own), -n)) for own in exact] + [16, 16]
    assert all(before >= after for before, after in pairwise(record.kept))
    assert math.isclose(exact[-1], 12)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [Channel, lambda **options: SoftFilterPruning(0.4, **options), lambda **options: NetworkSlimming(0.4, **options)],
)
@pytest.mark.parametrize("name", ["round_to", "min_width"])
@pytest.mark.parametrize("value", [0, -8, 8.0, True, None, "8"])
def test_what_is_no_width_is_refused(make: Callable[..., Any], name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"expected {name} to be a whole number of at least 1, got {value!r}"):
        make(**{name: value})


def test_widths_that_no_layer_can_fall_to_are_refused_before_training() -> None:
    assert len(channel_prunables(TracedModel(Joined(), (IMAGES[:2],)), Channel(round_to=39))) == 5
    with pytest.raises(
        InputError, match="expected round_to and min_width below the width of a layer of this Joined, got"
    ):
        channel_prunables(TracedModel(Joined(), (IMAGES[:2],)), Channel(round_to=80))
