"""The arithmetic of ADMM: projections against every other point, and a toy by hand."""

import math
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.pruning.admm import SparseSet, Split, residual
from lightning_prune.pruning.competition import Competition
from lightning_prune.pruning.finding import channel_prunables
from lightning_prune.pruning.granularities.block import Block
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.granularities.element import Element
from lightning_prune.pruning.granularities.granularity import Granularity
from lightning_prune.pruning.granularities.kernel import Kernel
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.pruning.granularities.pattern import SCP4, Pattern
from lightning_prune.pruning.granularities.vector import Vector
from lightning_prune.pruning.prunable_weight import PrunableWeight
from lightning_prune.pruning.quota import Quota
from lightning_prune.slimming import TracedModel


def single(shape: tuple[int, ...], granularity: Granularity, sparsity: float) -> SparseSet:
    return SparseSet(Competition([PrunableWeight("w", torch.Size(shape), granularity)], [sparsity], Quota(sparsity)))


def test_the_rounds_of_a_quadratic_toy_worked_by_hand() -> None:
    """The minimum of |w - a|^2 / 2 + rho / 2 |w - z + u|^2 is (a + rho (z - u)) / (1 + rho)."""
    rho, a = 0.5, torch.tensor([[3.0, 1.0, 0.5, -2.0]], dtype=torch.float64)
    sparse = single((1, 4), Element(), 0.5)
    split = Split.start(sparse, {"w": a})
    assert split.near["w"].tolist() == [[3, 0, 0, -2]]
    rounds = []
    for _ in range(60):
        weights = {"w": (a + rho * (split.near["w"] - split.dual["w"])) / (1 + rho)}
        split = split.update(sparse, weights)
        rounds.append((weights["w"], split.dual["w"], float(residual([split], weights))))
        assert split.near["w"].tolist() == [pytest.approx([3, 0, 0, -2])]
    assert rounds[0][0].tolist() == [pytest.approx([3, 2 / 3, 1 / 3, -2])]
    assert rounds[0][1].tolist() == [pytest.approx([0, 2 / 3, 1 / 3, 0])]
    assert rounds[1][0].tolist() == [pytest.approx([3, 4 / 9, 2 / 9, -2])]
    assert rounds[1][1].tolist() == [pytest.approx([0, 10 / 9, 5 / 9, 0])]
    for (before, _, _), (after, _, _) in pairwise(rounds):
        torch.testing.assert_close(after[0, 1:3], before[0, 1:3] * 2 / 3)
    assert rounds[0][2] == pytest.approx(math.sqrt((5 / 9) / (13 + 5 / 9)))
    assert rounds[-1][0].tolist() == [pytest.approx([3, 0, 0, -2], abs=1e-9)]
    assert rounds[-1][1].tolist() == [pytest.approx([0, 2, 1, 0], abs=1e-9)]


def test_lenet_keeps_as_many_weights_as_the_paper_counts() -> None:
    sizes, rates = (500, 25_000, 400_000, 5_000), (0.8, 0.92, 0.991, 0.93)
    weights = {str(size): torch.randn(1, size) for size in sizes}
    prunables = [PrunableWeight(name, weight.shape, Element()) for name, weight in weights.items()]
    near = SparseSet(Competition(prunables, rates, Quota(0.0))).project(weights)
    assert sum(int(copy.count_nonzero()) for copy in near.values()) == 6_050


def keeping(cells: list[Tensor], number: int) -> Iterator[Tensor]:
    """Every union of `number` of the cells, which are masks."""
    return (torch.stack(kept).any(0) for kept in combinations(cells, number))


def cells(shape: tuple[int, ...], label: Callable[..., Any]) -> list[Tensor]:
    """The entries of a weight by what `label` says of their indices, as masks in the order of the labels."""
    found: dict[Any, Tensor] = {}
    for index in product(*map(range, shape)):
        found.setdefault(label(*index), torch.zeros(shape, dtype=torch.bool))[index] = True
    return [found[key] for key in sorted(found)]


def joined(parts: list[list[Tensor]]) -> Iterator[Tensor]:
    return (torch.stack(masks).any(0) for masks in product(*parts))


def filterwise(shape: tuple[int, ...]) -> Iterator[Tensor]:
    kernels = cells(shape, lambda o, i, y, x: (o, i))
    rows = [kernels[o * shape[1] : (o + 1) * shape[1]] for o in range(shape[0])]
    return joined([list(keeping(row, shape[1] // 2)) for row in rows])


def two_of_four() -> Iterator[Tensor]:
    entries = cells((2, 8), lambda o, i: (o, i))
    return joined([list(keeping(entries[start : start + 4], 2)) for start in range(0, 16, 4)])


def patterned() -> Iterator[Tensor]:
    entries = cells((2, 2, 3, 3), lambda *index: index)
    kernels = [entries[start : start + 9] for start in range(0, 36, 9)]
    return joined([[torch.stack([kernel[p] for p in pattern]).any(0) for pattern in SCP4] for kernel in kernels])


EXACT = {
    "element": ((2, 5), Element(), 0.5, lambda: keeping(cells((2, 5), lambda o, i: (o, i)), 5)),
    "vector": ((2, 2, 2, 2), Vector(), 0.5, lambda: keeping(cells((2, 2, 2, 2), lambda o, i, y, x: (o, i, y)), 4)),
    "kernel": ((2, 3, 2, 2), Kernel(), 0.5, lambda: keeping(cells((2, 3, 2, 2), lambda o, i, y, x: (o, i)), 3)),
    "kernel_per_filter": ((2, 4, 2, 2), Kernel(per_filter=True), 0.5, lambda: filterwise((2, 4, 2, 2))),
    "block": ((4, 6), Block(2, 2), 2 / 3, lambda: keeping(cells((4, 6), lambda o, i: (o // 2, i // 2)), 2)),
    "n_m": ((2, 8), NM(2, 4), 0.5, two_of_four),
    "pattern": ((2, 2, 3, 3), Pattern(), 5 / 9, patterned),
}


@pytest.mark.parametrize("name", EXACT)
def test_no_other_point_of_the_sparse_set_is_nearer(name: str) -> None:
    shape, granularity, sparsity, supports = EXACT[name]
    sparse, every = single(shape, granularity, sparsity), torch.stack(list(supports()))
    for _ in range(20):
        weight = torch.randn(shape, dtype=torch.float64)
        near = sparse.project({"w": weight})["w"]
        distances = (weight * ~every).square().flatten(1).sum(1)
        best = distances.argmin()
        assert torch.equal(near, weight * every[best])


def test_the_projection_over_several_layers_is_the_nearest_too() -> None:
    weights = {"a": torch.randn(2, 3, dtype=torch.float64), "b": torch.randn(2, 2, dtype=torch.float64)}
    prunables = [PrunableWeight(name, weight.shape, Element()) for name, weight in weights.items()]
    near = SparseSet(Competition(prunables, [0.6, 0.6], Quota(0.6, "global"))).project(weights)
    flat = torch.cat([weight.flatten() for weight in weights.values()])
    distances = {
        kept: float(flat.square().sum() - flat[list(kept)].square().sum()) for kept in combinations(range(10), 4)
    }
    allowed = {kept: d for kept, d in distances.items() if min(kept) < 6 <= max(kept)}  # a layer keeps at least one
    best = min(allowed, key=allowed.__getitem__)
    found = torch.cat([copy.flatten() for copy in near.values()]).nonzero().flatten().tolist()
    assert found == list(best)


def test_channels_are_nearest_in_all_that_exists_for_them() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
            self.b = nn.Conv2d(5, 2, 1)

        def forward(self, image: Tensor) -> Tensor:
            return self.b(self.a(image))

    module = Block()
    traced = TracedModel(module, (torch.randn(1, 1, 4, 4),))
    prunables = [one for one in channel_prunables(traced, Channel()) if one.size == 5]
    for _ in range(20):
        weights = {name: torch.randn_like(p, dtype=torch.float64) for name, p in module.named_parameters()}
        near = SparseSet(Competition(prunables, [0.4], Quota(0.4))).project(weights)
        assert set(near) == {"a.0.weight", "a.0.bias", "a.1.weight", "a.1.bias"}
        squares = torch.stack([weights[name].square().reshape(5, -1).sum(1) for name in near]).sum(0)
        best = min(combinations(range(5), 2), key=lambda gone: float(squares[list(gone)].sum()))
        for part in near.values():
            assert [j for j in range(5) if not part[j].any()] == list(best)


def test_the_pull_is_w_minus_z_plus_u_and_survives_another_rho() -> None:
    split = Split({"w": torch.randn(3, 4)}, {"w": torch.randn(3, 4)})
    weight = torch.randn(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(0.3 * split.pull({"w": weight}), weight)
    torch.testing.assert_close(gradient, 0.3 * (weight.detach() - split.near["w"] + split.dual["w"]))
    other = split.rescaled(4.0)
    torch.testing.assert_close(1.2 * other.dual["w"], 0.3 * split.dual["w"])  # rho U, the multipliers
    assert torch.equal(other.near["w"], split.near["w"])
