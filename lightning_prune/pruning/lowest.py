"""Exactly so many of the lowest scores, over as many tensors as there are, in a few reads of the memory."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_prune.errors import InputError

CACHE_BLOCK = 2**22
"""Scores read together: few enough for small intermediate results, enough that threads seldom wait for each other."""

SHORT = 2**14
"""Mean length of tensors below which it is faster to join them."""

FEW = 2**14
"""Scores that are sorted at once; at least 12 ** 3, so that a search of more leaves fewer than it began with."""

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@torch.no_grad()
def lowest(scores: Sequence[Tensor], number: int) -> list[Tensor]:
    """Return which are the `number` lowest scores of all tensors together.

    Of equal scores the one in the earlier tensor, then at the lower index, goes first: the result is that of a stable
    sort of all scores in a row, at a fraction of its time and memory.

    Args:
        scores: Tensors of `(n_scores,)` on one device, any of them empty; `-inf` goes before, `inf` after all others.
        number: How many to choose, from 0 to the number of all scores.

    Returns:
        For each tensor `(n_scores,)` bool, True = chosen.

    Raises:
        InputError: If a score is not a number.

    >>> [chosen.tolist() for chosen in lowest([torch.tensor([0.3, 0.1]), torch.tensor([0.2, 0.1])], 3)]
    [[False, True], [True, True]]
    """
    sizes = [len(part) for part in scores]
    if len(scores) > 1 + sum(sizes) // SHORT or len({part.dtype for part in scores}) > 1:
        (chosen,) = lowest([torch.cat(list(scores))], number)
        return [part.clone() for part in torch.split(chosen, sizes)]
    blocks = cut(scores)
    if blocks and torch.stack([block.amax() for block in blocks]).isnan().any():
        raise InputError("expected finite weights to score, got NaN: the training has diverged")
    if number == 0:
        return [torch.zeros_like(part, dtype=torch.bool) for part in scores]
    threshold, upto = kth_lowest(blocks, number)
    masks = [part <= threshold for part in scores]
    drop_last_ties(blocks, cut(masks), threshold, upto - number)
    return masks


def cut(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return views of tensors of `(n_scores,)`, in order, none longer than `CACHE_BLOCK` and none empty."""
    return [block for tensor in tensors for block in torch.split(tensor, CACHE_BLOCK) if len(block)]


def kth_lowest(blocks: Sequence[Tensor], number: int) -> tuple[float, int]:
    """Return the `number`-th lowest score, from 1, of blocks of `(n_scores,)`, and how many are at most as high.

    A sample tells bounds, most likely just below and above it, and what lies between them is copied and searched.
    Where the sample misleads, halving the numbers that the format can write needs at most as many readings as it has
    bits, whatever the scores are.

    Reference:
        Floyd and Rivest, Expected time bounds for selection, 1975, for sample and bounds.
    """
    dtype, total = blocks[0].dtype, sum(map(len, blocks))
    low = to_key(-math.inf, dtype) - 1  # NaN, and no score is at most that
    high, at_most_high = to_key(math.inf, dtype), total
    room = max(FEW, round(12 * total ** (2 / 3)))  # twice what the bounds are expected to leave
    guesses = guess_bounds(blocks, number) if total > room else [(low, high)]
    while high - low > 1:
        bottom, top = guesses[0] if guesses else (low, (low + high) // 2)
        below, upto, inside = survey(blocks, from_key(bottom, dtype), from_key(top, dtype), room)
        if below < number <= upto:
            if upto - below <= room:
                threshold, at_most = kth_of_few(torch.cat(inside), number - below)
                return threshold, below + at_most
            low, high, at_most_high = bottom, top, upto
        elif number <= below:
            high, at_most_high = bottom, below
        else:
            low = top
        guesses = [(bottom, top) for bottom, top in guesses[1:] if low <= bottom and top <= high]
    return from_key(high, dtype), at_most_high


def kth_of_few(scores: Tensor, number: int) -> tuple[float, int]:
    """Return what `kth_lowest` does, of `(n_scores,)`."""
    if len(scores) > FEW:
        return kth_lowest([scores], number)
    # Not kthvalue, which refuses to run on a GPU where deterministic algorithms are asked for.
    threshold = scores.sort().values[number - 1]
    return threshold.item(), int(torch.count_nonzero(scores <= threshold))


def guess_bounds(blocks: Sequence[Tensor], number: int) -> list[tuple[int, int]]:
    """Return keys that the `number`-th lowest score of all blocks, `(n_scores,)`, is most likely above and at most.

    The best guess comes first.
    """
    total = sum(map(len, blocks))
    stride = round(total ** (1 / 3))
    while math.gcd(stride, 2 * 3 * 5 * 7) > 1:  # else a stride could fall on one column of a matrix only
        stride += 1
    start, taken = 0, []
    for block in blocks:
        taken.append(block[start::stride])
        start = (start - len(block)) % stride
    sample = torch.cat(taken).sort().values
    rank, margin = number * len(sample) // total, math.ceil(3 * math.sqrt(len(sample)))  # six standard deviations
    ends = max(rank - margin, 0), min(rank + margin, len(sample) - 1)
    low, high = (to_key(sample[end].item(), sample.dtype) for end in ends)
    bounds = (low, high), (low - 1, low), (high - 1, high)  # the last two are for many equal scores at a bound
    return [(low, high) for low, high in bounds if low < high]


def survey(blocks: Sequence[Tensor], low: float, high: float, room: int) -> tuple[int, int, list[Tensor]]:
    """Return how many scores of `(n_scores,)` blocks are at most `low`, and at most `high`, and those between.

    The last are left out where they are more than `room`.
    """
    below, upto, inside = 0, 0, []
    for block in blocks:
        lower, upper = block <= low, block <= high
        below += int(torch.count_nonzero(lower))
        upto += int(torch.count_nonzero(upper))
        if upto - below <= room:
            inside.append(block[lower ^ upper])
    return below, upto, inside


def drop_last_ties(blocks: Sequence[Tensor], masks: Sequence[Tensor], threshold: float, excess: int) -> None:
    """Take back, in place, the last `excess` of the chosen scores that equal the threshold; all `(n_scores,)`."""
    for block, mask in zip(reversed(blocks), reversed(masks), strict=True):
        if excess == 0:
            return
        ties = block == threshold
        found = int(torch.count_nonzero(ties))
        first = 0 if found <= excess else int(ties.nonzero()[-excess])
        mask[first:] ^= ties[first:]
        excess -= min(found, excess)


def to_key(value: float, dtype: torch.dtype) -> int:
    """Return the integer that orders `value` among all numbers of the format: 0 for both zeros, 1 for the next."""
    integer = INTEGERS[dtype.itemsize]
    bits = int(torch.tensor(value, dtype=dtype).view(integer))
    return bits if bits >= 0 else torch.iinfo(integer).min - bits


def from_key(key: int, dtype: torch.dtype) -> float:
    """Return the number that `to_key` gives the key."""
    integer = INTEGERS[dtype.itemsize]
    bits = key if key >= 0 else torch.iinfo(integer).min - key
    return float(torch.tensor(bits, dtype=integer).view(dtype))
