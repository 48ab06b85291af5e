"""Where networks are quantized."""

import pytest
import torch
from quantization_networks import IMAGES, Branches, branches
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.models.resnet import resnet20
from lightning_prune.quantization.placement import place


@pytest.fixture
def network() -> Branches:
    return branches()


def test_placement_of_every_kind_of_call(network: nn.Module) -> None:
    placement = place(network, IMAGES[:2], lambda names: names)
    assert [(call.name, call.reads, call.norm and call.norm.call) for call in placement.layers] == [
        ("stem", None, "norm1/batch_norm/0"),
        ("inner", "relu/relu/0", "norm2/batch_norm/0"),
        ("side", "relu/relu/1", None),
        ("fc", "/adaptive_avg_pool2d/0", None),
    ]
    assert {one.name: (one.calls, one.again, one.signed) for one in placement.tensors} == {
        "relu/relu/0": (("relu/relu/0",), (), False),
        "norm2/batch_norm/0": (("norm2/batch_norm/0",), (), True),
        # The concatenation and what enters it share one range, the larger maximum pools before it need none.
        "relu/relu/1": (("relu/relu/1", "side/conv2d/0"), ("/cat/0", "/max_pool2d/0", "/max_pool2d/1"), True),
        "/adaptive_avg_pool2d/0": (("/adaptive_avg_pool2d/0",), (), True),
        # The logits stay float: a linear layer runs in integers all the same.
    }


def test_resnet20_is_rounded_where_integer_kernels_need_it() -> None:
    placement = place(resnet20(), torch.zeros(2, 3, 32, 32), lambda names: names)
    # 19 convolutions and a linear layer; an output of each convolution, 9 sums, one average.
    assert len(placement.layers) == 20
    assert len(placement.tensors) == 19 + 9 + 1
    assert placement.left == {}


class Odd(nn.Module):
    """Weights that no layer module holds, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3, 1, 1))
        self.twice = nn.Conv2d(4, 4, 1)
        self.made = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.kernel)
        x = self.twice(F.relu(self.twice(x)))
        return F.linear(x.mean((2, 3)), self.made * 2)


def test_functional_repeated_and_computed_weights() -> None:
    placement = place(Odd(), IMAGES, lambda names: names)
    assert [(call.name, call.weight) for call in placement.layers] == [
        ("kernel", "kernel"),
        ("twice", "twice.weight"),
        ("twice#2", "twice.weight"),
    ]
    assert placement.left == {"/linear/0": "its weight is computed"}


class Contiguous(nn.Module):
    """Two layers, between which a function may return the very tensor that it gets, once or twice."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.first, self.second, self.calls = nn.Linear(8, 8), nn.Linear(8, 8), calls

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for _ in range(self.calls):
            x = x.contiguous()
        return self.second(x) * 2


@pytest.mark.parametrize("calls", [1, 2])
def test_functions_that_return_what_they_get_change_nothing(calls: int) -> None:
    plain, called = (place(Contiguous(count), torch.randn(2, 8), lambda names: names) for count in (0, calls))
    assert called.layers == plain.layers
    assert called.tensors == plain.tensors
