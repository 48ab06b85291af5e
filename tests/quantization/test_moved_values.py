"""Numbers that only change their places are rounded once, whatever the operator that moves them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.quantization.placement import place


class Moving(nn.Module):
    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self._move = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1), move

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self._move(F.relu(self.first(x))))


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda x: x.transpose(2, 3),
    "swapaxes": lambda x: x.swapaxes(2, 3),
    "swapdims": lambda x: x.swapdims(2, 3),
    "moveaxis": lambda x: x.moveaxis(2, 3),
    "movedim": lambda x: x.movedim(2, 3),
    "mT": lambda x: x.mT,
    "repeat": lambda x: x.repeat(1, 1, 2, 1),
    "tile": lambda x: x.tile(1, 1, 2, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2),
    "reshape": lambda x: x.flatten(2).reshape(x.shape),
    "view_as": lambda x: x.flatten(2).view_as(x),
    "expand_as": lambda x: x[:1].expand_as(x),
    "upsample_nearest": lambda x: F.interpolate(x, scale_factor=2),
    "upsample_nearest1d": lambda x: F.interpolate(x.flatten(2), scale_factor=2).unflatten(2, (8, 16)),
}


@pytest.mark.parametrize("name", MOVES)
def test_moved_numbers_are_rounded_where_they_are_made(name: str) -> None:
    placement = place(Moving(MOVES[name]), torch.zeros(2, 3, 8, 8), lambda names: names)
    assert [layer.reads for layer in placement.layers] == [None, "/relu/0"]
    assert [tensor.calls for tensor in placement.tensors] == [("/relu/0",), ("last/conv2d/0",)]


def test_other_numbers_are_rounded_again() -> None:
    placement = place(Moving(lambda x: x.flip(2).sqrt()), torch.zeros(2, 3, 8, 8), lambda names: names)
    assert [layer.reads for layer in placement.layers] == [None, "/sqrt/0"]
