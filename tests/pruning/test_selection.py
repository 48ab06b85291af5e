"""Which units go, by hand."""

import pytest
import torch

from lightning_prune.errors import InputError
from lightning_prune.pruning.selection import put_first, select_alone, select_together


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_what_is_gone_goes_first_and_other_scores_stay_bit_by_bit(dtype: torch.dtype) -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores[:4] = torch.tensor([0.0, -1e38, 1e38, 1e-38])
    kept = torch.arange(1000) % 3 > 0
    wanted = scores.masked_fill(~kept, -torch.inf)
    for mask in (kept, kept.float()):
        own = scores.clone()
        put_first(own, mask)
        assert torch.equal(own, wanted)


def test_runs_lose_the_same_and_what_may_not_go_stays() -> None:
    scores = torch.tensor([1.0, 2, 3, 4, 10, 20, 30, 40])
    free = torch.tensor([True, True, True, True, False, False, True, True])
    one = select_alone(scores, 4)
    two = select_alone(scores, 2, runs=2)
    three = select_alone(scores, 6, free)
    four = select_alone(scores, 7, free)
    assert one.int().tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert two.int().tolist() == [1, 1, 0, 0, 1, 1, 0, 0]
    assert three.int().tolist() == [1, 1, 1, 1, 0, 0, 1, 1]
    assert torch.equal(four, three)


def test_a_layer_at_its_floor_leaves_the_rest_to_others() -> None:
    scores = [torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 8])]
    pruned = select_together(scores, 0.5, [None] * 3, floor=0.25)
    assert [one.int().tolist() for one in pruned] == [[1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
    with pytest.raises(InputError, match=r"at most 0\.5000"):
        select_together(scores, 0.6, [None] * 3, floor=0.5)
