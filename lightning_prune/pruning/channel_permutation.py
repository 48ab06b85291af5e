"""Reorder channels so that N:M pruning along the input dimension loses less, without changing what a model computes."""

import logging
import math
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, stored_tensors
from lightning_prune.pruning.granularities.n_m import NM
from lightning_prune.slimming import Coupling, Group, Member, couple, reference_outputs, same_outputs

log = logging.getLogger(__name__)

TWO_OF_FOUR = NM(2, 4)
"""What sparse tensor cores run."""

ROUNDING = 1e-6
"""Smallest gain that counts, relative to the largest entry of the table: a smaller one may be a loss, rounded."""

CACHE = 2**18
"""Elements of a temporary that a processor's cache holds."""

CHAIN = 8
"""Most swaps in a row that only together gain; more found nothing on random matrices."""


@dataclass(frozen=True)
class Retained:
    """Hold how much magnitude N:M pruning leaves in the layers that read permutable channels.

    Attributes:
        total: Sum of `|w|`.
        before: What N:M leaves of it in the old order.
        after: What N:M leaves of it in the new order.
        bound: What pruning each row to the same sparsity without any pattern would leave, an upper bound.
        finished: Whether every search ended before its time did; if not, the order depends on the machine's speed.
    """

    total: float
    before: float
    after: float
    bound: float
    finished: bool

    @property
    def efficacy(self) -> float:
        """Percentage of the loss to the pattern that the new order wins back."""
        return 100 * (self.after - self.before) / (self.bound - self.before) if self.bound > self.before else 0.0


def permute_channels(
    model: nn.Module, example_input: ExampleInput, granularity: NM = TWO_OF_FOUR, *, seconds: float = 60.0
) -> Retained:
    """Reorder a model's channels, in place, so that N:M pruning keeps more magnitude.

    Channels move in all tensors in which they lie: filters, biases, normalization, and the columns of every layer that
    reads them, so that the dense function stays the same up to the rounding of sums. After each group of channels that
    is proven on the example input and on noise; a group that changes the outputs is moved back. Permute a trained
    dense model before pruning, and before its optimizer is built: momentum does not move along.

    The result depends on the weights alone, so that it is the same in all processes, unless the time runs out; what
    runs in several processes then has to permute in one of them.

    Args:
        model: Any module that can be traced with the example input.
        example_input: A tensor or a tuple of tensors that `forward` takes.
        granularity: The pattern.
        seconds: About how long to search, in seconds.

    Raises:
        InputError: If `granularity` is no `NM`, `seconds` is negative, or the model cannot be traced or gives NaN.

    Reference:
        Pool, Yu, "Channel Permutations for N:M Sparsity", NeurIPS 2021.
    """
    if not isinstance(granularity, NM):
        raise InputError(f"expected granularity NM(n, m), got {granularity!r}")
    if not seconds >= 0:
        raise InputError(f"expected seconds >= 0, got {seconds!r}")
    coupling = couple(model, example_input)
    tensors = stored_tensors(model)
    groups = [(group, readers) for group in coupling.written() if (readers := _readers(coupling, group, granularity))]
    weights = [tensors[name] for name in dict.fromkeys(member.name for _, readers in groups for member in readers)]
    total, before, bound = _magnitudes(weights, granularity)
    references = reference_outputs(model, example_input) if groups else []
    end, finished = monotonic() + seconds, True
    for number, (group, readers) in enumerate(groups):
        matrix = torch.cat([_columns(tensors[member.name], member.index) for member in readers], dim=1).T
        share = max(0.0, end - monotonic()) / (len(groups) - number)
        order, ended = search(matrix, granularity, seconds=share)
        finished &= ended
        moved = [member for member in group.members if member.name not in coupling.gathers]
        _move(tensors, moved, order)
        if not same_outputs(model, references):
            _move(tensors, moved, order.argsort())
            log.warning("left the inputs of %s in their order: another one changes the outputs", readers[0].layer)
    if not finished:
        log.warning("stopped looking for a better order of channels after %g seconds: it depends on the clock", seconds)
    if groups and coupling.unread:
        log.warning("did not move what forward does not read: %s", ", ".join(coupling.unread))
    return Retained(total, before, _magnitudes(weights, granularity)[1], bound, finished)


@torch.no_grad()
def search(matrix: Tensor, granularity: NM = TWO_OF_FOUR, *, seconds: float = math.inf) -> tuple[Tensor, bool]:
    """Find an order of columns in which N:M pruning keeps more magnitude, by swapping two as long as that helps.

    With `t` the n-th largest of the other magnitudes in its row's group, a `w` that enters the group adds `max(w, t)`,
    up to what does not depend on `w`. So one table tells the gain of every swap, and a swap renews only the table's
    rows of the two stripes (`m` columns side by side) that it changes. The best swap comes first; where none helps,
    up to `CHAIN` of them in a row are tried.

    Args:
        matrix: `(rows, columns)` weights.
        granularity: The pattern; the number of columns is a multiple of its `m`.
        seconds: Stop after about this long.

    Returns:
        `(columns,)` int64, the old column at each new position; and whether the search came to its end in time. The
        order never keeps less than the given one.

    Raises:
        InputError: If the columns do not fall into stripes.

    Reference:
        Pool, Yu, "Channel Permutations for N:M Sparsity", NeurIPS 2021 (greedy swaps); Kernighan, Lin, "An Efficient
        Heuristic Procedure for Partitioning Graphs", 1970 (swaps that gain only together).

    >>> matrix = torch.tensor([[9.0, 8, 7, 6, 1, 1, 1, 1]])
    >>> search(matrix)[0].tolist()
    [4, 5, 2, 3, 0, 1, 6, 7]
    """
    granularity.tile(matrix.shape)
    end, m = monotonic() + seconds, granularity.m
    columns = matrix.detach().abs().float().T.contiguous()
    order, stripe = torch.arange(len(columns)), torch.arange(len(columns)) // m
    same = (stripe[:, None] == stripe).to(columns.device)
    table, stale = columns.new_empty(same.shape), list(range(len(columns) // m))
    found, chain, total = order.clone(), list[int](), 0.0
    while True:
        for number in stale:
            if monotonic() > end:
                return _no_worse(matrix, found, granularity), False
            table[number * m : (number + 1) * m] = _entering(columns, number, granularity)
        gain = table - table.diagonal()[:, None]
        gain = (gain + gain.T).masked_fill_(same, -math.inf)
        gain[chain] = gain[:, chain] = -math.inf
        best = int(gain.argmax())
        total += float(gain.view(-1)[best])
        if len(chain) == 2 * CHAIN or total == -math.inf:
            return _no_worse(matrix, found, granularity), True
        pair = [best // len(columns), best % len(columns)]
        order[pair], columns[pair], table[:, pair] = order[pair[::-1]], columns[pair[::-1]], table[:, pair[::-1]]
        stale, chain = [position // m for position in pair], chain + pair
        if total > ROUNDING * float(table.max()):
            found, chain, total = order.clone(), [], 0.0


def _entering(columns: Tensor, stripe: int, granularity: NM) -> Tensor:
    """Return `(m, columns)`: what each column adds when it replaces each one of a stripe, up to a constant a row.

    Args:
        columns: `(columns, rows)` magnitudes.
        stripe: Number of the stripe.
        granularity: The pattern.
    """
    inside = columns[stripe * granularity.m : (stripe + 1) * granularity.m]
    parts = torch.split(columns, max(1, CACHE // columns.shape[1]))
    result = []
    for place in range(granularity.m):
        others = torch.cat([inside[:place], inside[place + 1 :]])
        threshold = others.topk(granularity.n, dim=0).values[-1]
        result.append(torch.cat([torch.maximum(part, threshold).sum(dim=1) for part in parts]))
    return torch.stack(result)


def _no_worse(matrix: Tensor, order: Tensor, granularity: NM) -> Tensor:
    """Return `order` if that keeps more in float64, else the old order."""
    _, before, _ = _magnitudes([matrix], granularity)
    _, after, _ = _magnitudes([matrix[:, order]], granularity)
    return order if after > before else torch.arange(len(order))


def _magnitudes(weights: list[Tensor], granularity: NM) -> tuple[float, float, float]:
    """Return the sums of magnitudes of dense weights, of N:M pruned ones, and of ones with each row pruned as much."""
    total = kept = bound = 0.0
    for weight in weights:
        rows = weight.detach().cpu().double().abs().movedim(1, -1).flatten(0, -2)
        total += float(rows.sum())
        kept += float(rows.view(len(rows), -1, granularity.m).topk(granularity.n).values.sum())
        bound += float(rows.topk(rows.shape[1] * granularity.n // granularity.m).values.sum())
    return total, kept, bound


def _readers(coupling: Coupling, group: Group, granularity: NM) -> list[Member]:
    """Return the members whose columns N:M pruning cuts into groups; none if the group is not worth a search.

    A group is searched when each `m` consecutive units are exactly one group of every reader. Where all of a unit's
    positions fill whole groups, as those of a linear layer after flattening may, no order changes anything.
    """
    m, result = granularity.m, []
    for member in group.members:
        if member.role != "reader" or member.dim != 1 or coupling.shapes[member.name][1] % m:
            continue
        if group.size % m == 0 and _is_striped(member.index, m):
            result.append(member)
        elif member.index.shape[1] % m or not _is_striped(member.index.reshape(-1, 1), m):
            return []
    return result


def _is_striped(index: Tensor, m: int) -> bool:
    """Return whether each `m` consecutive rows of `(n_units, positions)` fill, in each column, one group of `m`."""
    stripes = (index // m).view(len(index) // m, m, -1)
    return bool((stripes == stripes[:, :1]).all())


def _columns(weight: Tensor, index: Tensor) -> Tensor:
    """Return `(n_units, rows)`, all that a weight multiplies each unit with, given the unit's positions."""
    return weight.detach().movedim(1, 0).flatten(1)[index.to(weight.device)].flatten(1)


@torch.no_grad()
def _move(tensors: dict[str, Tensor], members: list[Member], order: Tensor) -> None:
    """Put unit `order[i]` at the place of unit `i`, in every member.

    An index buffer that gathers channels is none of them: where its inputs and outputs move alike, what it says stays
    true.
    """
    for member in members:
        tensor = tensors[member.name]
        positions = torch.arange(tensor.shape[member.dim])
        positions[member.index] = member.index[order]
        tensor.copy_(tensor.index_select(member.dim, positions.to(tensor.device)))
