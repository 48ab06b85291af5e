"""Inputs of one bit, and the scaling map, against torch."""

import pytest
import torch
from quantizer_family import prepared
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.quantization.quantizers.xnor import XNOR


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("by_name", [True, False])
def test_scaling_map_is_the_mean_magnitude_under_the_filter(groups: int, by_name: bool) -> None:
    quantizer = XNOR(scaling_map=True)
    x, bias = torch.randn(2, 4, 9, 8), torch.randn(6)
    weight = torch.randn(6, 4 // groups, 3, 3)
    layer = quantizer.layer(quantizer.weight(weight, 0), prepared(quantizer, signed=True))
    named = {"bias": bias, "stride": 2, "padding": (2, 1), "dilation": 2, "groups": groups}
    out = layer(F.conv2d, None, x, weight, **named) if by_name else layer(F.conv2d, None, x, weight, *named.values())
    binary = F.conv2d(x.sign(), weight.sign(), None, 2, (2, 1), 2, groups)
    magnitudes = x.abs().reshape(2, groups, -1, 9, 8).mean(2)
    patches = F.unfold(magnitudes, 3, dilation=2, padding=(2, 1), stride=2).reshape(2, groups, 9, -1).mean(2)
    scaled = binary.reshape(2, groups, 6 // groups, -1) * patches.unsqueeze(2)
    expected = scaled.reshape(binary.shape) * weight.abs().mean((1, 2, 3)).reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    torch.testing.assert_close(out, expected)
    assert layer.input is not None
    layer.input.quantizing = False
    alone = F.conv2d(x, layer.rounded(weight), bias, 2, (2, 1), 2, groups)
    torch.testing.assert_close(layer(F.conv2d, None, x, weight, **named), alone)


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_scaling_map_of_a_linear_layer_is_the_mean_magnitude(shape: tuple[int, ...]) -> None:
    quantizer, x, weight, bias = XNOR(scaling_map=True), torch.randn(shape), torch.randn(4, 5), torch.randn(4)
    layer = quantizer.layer(quantizer.weight(weight, 0), prepared(quantizer, signed=True))
    expected = x.sign() @ weight.sign().T * weight.abs().mean(1) * x.abs().mean(-1, keepdim=True) + bias
    torch.testing.assert_close(layer(F.linear, None, x, weight, bias), expected)


def test_scaling_map_of_a_transposed_convolution_is_refused() -> None:
    with pytest.raises(InputError, match="expected scaling_map=False, since a layer is a transposed convolution"):
        XNOR(scaling_map=True).weight(torch.randn(3, 4, 2, 2), 1)
