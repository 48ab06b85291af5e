"""The lowest scores of many tensors, against a stable sort of them all in a row."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune.errors import InputError
from lightning_prune.pruning import lowest as search
from lightning_prune.pruning.lowest import from_key, kth_lowest, lowest, to_key

FORMATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
EMPTY_AND_SMALL = [0, 700, 1, 0, 0, 64, 65, 3, 4200, 0, 967]


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a few thousand scores as many as a hundred million are."""
    monkeypatch.setattr(search, "CACHE_BLOCK", 64)
    monkeypatch.setattr(search, "FEW", 12**3)
    monkeypatch.setattr(search, "SHORT", 1)


def reference(scores: list[Tensor], number: int) -> list[Tensor]:
    row = torch.cat(scores)
    chosen = torch.zeros(len(row), dtype=torch.bool)
    chosen[row.argsort(stable=True)[:number]] = True
    return list(chosen.split([len(part) for part in scores]))


def check(scores: list[Tensor], number: int) -> None:
    found, expected = lowest(scores, number), reference(scores, number)
    assert len(found) == len(scores)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.bool
        assert torch.equal(one, other)
        assert one.untyped_storage().nbytes() == len(one)  # saved alone, it does not bring the others along
    assert sum(int(part.sum()) for part in found) == number


def misleading(n: int, generator: torch.Generator) -> Tensor:
    """Return scores of which a sample would see none but the highest."""
    scores = torch.randn(n, generator=generator)
    scores[:: stride(n)] = 1e30
    return scores


def stride(n: int) -> int:
    step = round(n ** (1 / 3))
    return next(s for s in range(step, 2 * step + 12) if math.gcd(s, 210) == 1)


def with_infinities(n: int, generator: torch.Generator) -> Tensor:
    pick = torch.randint(4, (n,), generator=generator)
    return torch.randn(n, generator=generator).masked_fill(pick == 0, -math.inf).masked_fill(pick == 1, math.inf)


def signed_zeros(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-1, 3, (n,), generator=generator) * torch.randn(n, generator=generator).sign() * 0.5


def mostly_zero(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, generator=generator).abs() * (torch.rand(n, generator=generator) > 0.9)


def tiniest(n: int, generator: torch.Generator) -> Tensor:
    return torch.randint(-20, 20, (n,), generator=generator) * 1e-45


CASES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "normal": lambda n, generator: torch.randn(n, generator=generator),
    "equal": lambda n, generator: torch.full((n,), 0.25),
    "no score above -inf": lambda n, generator: torch.full((n,), -math.inf),
    "no score below inf": lambda n, generator: torch.full((n,), math.inf),
    "infinities": with_infinities,
    "signed zeros": signed_zeros,
    "mostly zero": mostly_zero,
    "two values": lambda n, generator: torch.randint(2, (n,), generator=generator).float(),
    "ascending": lambda n, generator: torch.arange(float(n)),
    "descending": lambda n, generator: torch.arange(float(n)).flip(0),
    "periodic": lambda n, generator: torch.arange(float(n)) % 64,
    "heavy tails": lambda n, generator: torch.randn(n, generator=generator) ** 21,
    "denormal": tiniest,
    "misleading": misleading,
}


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_it_is_a_stable_sort_of_everything(case: str, dtype: torch.dtype) -> None:
    total = sum(EMPTY_AND_SMALL)
    for seed, sparsity in enumerate((0.0, 1 / total, 0.05, 0.3, 0.5, 0.75, 0.9, 0.999, 1 - 1 / total, 1.0)):
        row = CASES[case](total, torch.Generator().manual_seed(seed)).to(dtype)
        check(list(row.split(EMPTY_AND_SMALL)), round(total * sparsity))


@pytest.mark.usefixtures("tiny_blocks")
def test_every_number_of_a_few_scores() -> None:
    scores = [torch.tensor(part) for part in ([2.0, -0.0, 1.0], [], [0.0, -math.inf, 1.0, math.inf], [1.0, 0.0])]
    for number in range(10):
        check(scores, number)
    assert [part.tolist() for part in lowest(scores, 3)] == [
        [False, True, False],
        [],
        [True, True, False, False],
        [False, False],
    ]


@pytest.mark.parametrize(
    "sizes", [[], [0], [0, 0], [1], [2, 0, 1], [3] * 4000, [20_000, 5, 90_000]], ids=lambda s: str(s)[:20]
)
def test_lists_of_any_lengths(sizes: list[int]) -> None:
    row = torch.randint(100, (sum(sizes),), generator=torch.Generator().manual_seed(0)).float()
    scores = list(row.split(sizes)) if sizes else []
    for number in {0, len(row) // 3, len(row)}:
        if scores:
            check(scores, number)
    assert lowest([], 0) == []


def test_formats_may_be_mixed() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(30_000, generator=generator).to(dtype) for dtype in FORMATS]
    check(scores, 50_000)


@pytest.mark.parametrize("case", ["normal", "mostly zero", "infinities", "misleading"])
def test_two_million(case: str) -> None:
    row = CASES[case](2_300_000, torch.Generator().manual_seed(1))
    check(list(row.split([1_500_000, 700_000, 100_000])), 2_070_000)


def test_a_view_with_gaps() -> None:
    scores = torch.randn(50_000, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(lowest([scores[:, 1]], 20_000)[0], lowest([scores[:, 1].clone()], 20_000)[0])


@pytest.mark.parametrize("sizes", [[5], [3, 0, 2], [100_000]])
@pytest.mark.parametrize("others", [0.0, math.inf, -math.inf])
@pytest.mark.parametrize("number", [0, 1])
def test_nan_is_refused(sizes: list[int], others: float, number: int) -> None:
    row = torch.full((sum(sizes),), others)
    row[-1] = math.nan
    row[0] = -others
    with pytest.raises(InputError, match="expected finite weights to score, got NaN: the training has diverged"):
        lowest(list(row.split(sizes)), number)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_keys_order_all_numbers(dtype: torch.dtype) -> None:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    numbers = numbers[~numbers.isnan()].unique()[::9]  # sorted, one zero
    keys = [to_key(number, dtype) for number in numbers.tolist()]
    assert keys == list(range(keys[0], keys[0] + 9 * len(keys), 9))
    assert [from_key(key, dtype) for key in keys] == numbers.tolist()
    assert to_key(-0.0, dtype) == to_key(0.0, dtype) == 0


def readings(monkeypatch: pytest.MonkeyPatch, scores: Tensor, number: int) -> int:
    """Return how often all scores are read before the threshold is known."""
    calls, survey = [], search.survey

    def spy(blocks: list[Tensor], low: float, high: float, room: int) -> tuple[int, int, list[Tensor]]:
        calls.append(sum(map(len, blocks)))
        return survey(blocks, low, high, room)

    monkeypatch.setattr(search, "survey", spy)
    threshold, upto = kth_lowest([scores], number)
    monkeypatch.undo()
    assert threshold == scores.kthvalue(number).values
    assert upto == (scores <= threshold).sum()
    return calls.count(len(scores))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sparsity", [0.001, 0.5, 0.9, 0.999])
def test_a_sample_spares_reading_everything_often(monkeypatch: pytest.MonkeyPatch, seed: int, sparsity: float) -> None:
    number, generator = int(300_000 * sparsity), torch.Generator().manual_seed(seed)
    assert readings(monkeypatch, torch.randn(300_000, generator=generator), number) == 1
    assert readings(monkeypatch, mostly_zero(300_000, generator), number) <= 2


def test_where_the_sample_misleads_bits_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = misleading(300_000, torch.Generator().manual_seed(0))
    assert 3 < readings(monkeypatch, scores, 100_000) <= 3 + 32
    assert 3 < readings(monkeypatch, scores.double(), 100_000) <= 3 + 64


class Largest(TorchDispatchMode):
    """Record the largest new tensor that is not a mask, and how many operations run."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.numel = self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.operations += 1
        for new in result if isinstance(result, list | tuple) else [result]:
            if (
                isinstance(new, Tensor)
                and new.dtype != torch.bool
                and new.untyped_storage().data_ptr() not in self.known
            ):
                self.numel = max(self.numel, new.numel())
        return result


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("number", [1000, 50_000, 90_000])
def test_no_scores_make_it_large_or_slow(monkeypatch: pytest.MonkeyPatch, case: str, number: int) -> None:
    monkeypatch.setattr(search, "CACHE_BLOCK", 2000)
    scores = CASES[case](100_000, torch.Generator().manual_seed(0))
    with Largest(scores) as seen:
        lowest([scores], number)
    assert seen.numel <= 100_000 / 3
    assert seen.operations < 50 * 6 * 40  # blocks, operations on each, 32 halvings and the rest
