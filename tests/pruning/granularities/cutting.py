"""What every granularity does, and weights to cut."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_prune.errors import InputError
from lightning_prune.pruning.granularities.granularity import Granularity

CONV, CONV1D, LINEAR = (8, 4, 3, 3), (8, 4, 5), (8, 12)


def weight(*shape: int, seed: int = 0) -> Tensor:
    """Return normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def check_cut(granularity: Granularity, shape: tuple[int, ...]) -> int:
    """Assert that every entry is in one unit, and that masks remove units as they are cut; return their number."""
    tensor = torch.arange(1.0, torch.Size(shape).numel() + 1).view(shape)
    cut = granularity.units(tensor)
    assert cut.reshape(-1).sort().values.equal(tensor.reshape(-1))
    assert cut.shape[1] == torch.Size(granularity.tile(shape)).numel()
    keep = torch.rand(len(cut), generator=torch.Generator().manual_seed(0)) < 0.5
    assert granularity.units(tensor * granularity.expand(keep, shape)).equal(cut * keep.unsqueeze(1))
    return len(cut)


def check_ramp(granularity: Granularity, shape: tuple[int, ...]) -> None:
    """Assert that what went early on a ramp stays removable, and as many units in all as the granularity fixes."""
    first = granularity.removable(weight(*shape).abs().view(-1), shape)
    assert first is not None
    gone = first & (torch.rand(first.shape, generator=torch.Generator().manual_seed(2)) < 0.6)
    later = granularity.removable(weight(*shape, seed=1).abs().view(-1).masked_fill(gone, -torch.inf), shape)
    assert later is not None
    assert later[gone].all()
    assert later.double().mean() == pytest.approx(granularity.sparsity)
    everything = granularity.removable(torch.full(first.shape, -torch.inf), shape)
    assert everything is not None
    assert everything.all()


def removed(granularity: Granularity, unit: int, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the indices of the entries of one unit, by its mask."""
    keep = torch.arange(len(granularity.units(torch.zeros(shape)))) != unit
    mask = torch.ones(shape) * granularity.expand(keep, shape)
    return [tuple(index) for index in (mask == 0).nonzero().tolist()]


def check_refused(build: Callable[[], object], message: str) -> None:
    """Assert that something is refused in one line."""
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)
