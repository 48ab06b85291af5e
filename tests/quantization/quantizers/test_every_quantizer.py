"""What all quantizers promise; a new one in `conf/quantizer` is tested at once."""

import copy
import importlib
import math
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from quantizer_family import DEFAULTS, QUANTIZERS, YAMLS, prepared
from torch import Tensor
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.quantization import quantizers
from lightning_prune.quantization.quantizers.bwn import BWN
from lightning_prune.quantization.quantizers.dorefa import DoReFa, DoReFaWeight
from lightning_prune.quantization.quantizers.lsq import LSQ
from lightning_prune.quantization.quantizers.pact import PACT
from lightning_prune.quantization.quantizers.quantizer import Layer, Quantizer, UnsupportedBits
from lightning_prune.quantization.quantizers.ttq import TTQ
from lightning_prune.quantization.quantizers.twn import TWN
from lightning_prune.quantization.quantizers.xnor import XNOR

every = pytest.mark.parametrize("quantizer", QUANTIZERS, ids=str)

CLASSES = [type(quantizer) for quantizer in DEFAULTS]
FIXED = {BWN: 2, XNOR: 2, TWN: 3, TTQ: 3}
"""How many levels quantizers have whose bits cannot be chosen."""


def conv(quantizer: Quantizer, weight: Tensor, signed: bool = True) -> Layer:
    return quantizer.layer(quantizer.weight(weight.detach(), 0), prepared(quantizer, signed))


@every
def test_zeros_stay_zero_and_get_the_gradient_of_any_other(quantizer: Quantizer) -> None:
    weight = torch.randn(6, 4, 3, 3) / 3
    kept = torch.rand_like(weight) > 0.5
    kept[2] = False
    weight = (weight * kept).requires_grad_()
    layer = conv(quantizer, weight)
    out = layer.rounded(weight)
    assert ((out == 0) | kept).all()
    assert (out != 0).any()
    upstream = torch.randn_like(out)
    out.backward(upstream)
    assert weight.grad is not None
    small = upstream.abs() > 1e-3
    assert ((weight.grad != 0) | kept | ~small).all()


@every
@pytest.mark.parametrize("signed", [True, False])
def test_trains_all_that_is_learned_in_any_format(quantizer: Quantizer, signed: bool) -> None:
    weight = (torch.randn(6, 4, 3, 3) / 3).requires_grad_()
    layer = conv(quantizer, weight, signed)
    x = torch.randn(2, 4, 5, 5)
    x[0, 0, 2, 2] = 20.0  # beyond what PACT begins with
    x = (x if signed else x.relu()).requires_grad_()
    layer(F.conv2d, None, x, weight, padding=1).square().sum().backward()
    for tensor in (x, weight, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).any()
    half = layer(F.conv2d, None, x.bfloat16(), weight.bfloat16(), padding=1)
    assert half.dtype == torch.bfloat16
    assert layer(F.conv2d, None, x[:0], weight, padding=1).shape == (0, 6, 5, 5)


@every
def test_copies_and_states_compute_the_same(quantizer: Quantizer) -> None:
    weight, x = torch.randn(6, 4) / 3, torch.randn(7, 4)
    layer = conv(quantizer, weight)
    fresh = quantizer.layer(quantizer.weight(torch.randn(6, 4), 0), quantizer.activation(True))
    fresh.load_state_dict(layer.state_dict())
    if fresh.input is not None:
        fresh.input.quantizing = True
    expected = layer(F.linear, None, x, weight)
    assert torch.equal(fresh(F.linear, None, x, weight), expected)
    assert torch.equal(copy.deepcopy(layer)(F.linear, None, x, weight), expected)


@every
def test_nothing_divides_by_zero_and_nothing_hides_nan(quantizer: Quantizer) -> None:
    zeros = torch.zeros(3, 4, requires_grad=True)
    layer = conv(quantizer, zeros)
    out = layer.rounded(zeros)
    out.backward(torch.randn(3, 4))
    assert (out == 0).all()
    assert zeros.grad is not None
    assert zeros.grad.isfinite().all()
    poisoned = torch.randn(3, 4)
    poisoned[1, 2] = math.nan
    assert layer.rounded(poisoned)[1, 2].isnan()
    if layer.input is not None:
        assert layer.input(poisoned)[1, 2].isnan()


@every
@pytest.mark.parametrize("signed", [True, False])
def test_levels_are_as_many_as_bits_have_and_stay_where_they_are(quantizer: Quantizer, signed: bool) -> None:
    weight = torch.randn(1, 5000) / 3
    module = quantizer.weight(weight, 0)
    out = module(weight)
    levels = 2 ** getattr(quantizer, "weight_bits", 8)
    assert len(out.unique()) <= FIXED.get(type(quantizer), levels)
    assert len(out.unique()) > 1
    if not isinstance(module, DoReFaWeight):
        torch.testing.assert_close(module(out), out)
    activation = prepared(quantizer, signed)
    if activation is not None:
        x = torch.linspace(-12, 12, 5000) if signed else torch.linspace(0, 12, 5000)
        y = activation.round(x)
        assert 1 <= len(y.unique()) <= 2 ** getattr(quantizer, "activation_bits", 1)
        torch.testing.assert_close(activation.round(y), y)


@pytest.mark.parametrize("signed", [True, False])
@every
def test_a_channel_of_zeros_is_still_zero(quantizer: Quantizer, signed: bool) -> None:
    activation = prepared(quantizer, signed)
    if activation is not None:
        assert activation.round(torch.zeros(3)).tolist() == [0.0] * 3


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if "weight_bits" in kind.__dataclass_fields__])
def test_other_bits(kind: Any) -> None:
    quantizer = kind(weight_bits=3, activation_bits=32)
    assert quantizer.of_bits(8) == kind(weight_bits=8, activation_bits=32)
    assert kind().of_bits(5) == kind(weight_bits=5, activation_bits=5)
    assert quantizer.of_bits(32) is None
    assert quantizer.activation(signed=True) is None
    assert torch.equal(
        kind(weight_bits=32).weight(torch.ones(2, 2), 0)(torch.full((2, 2), 0.3)), torch.full((2, 2), 0.3)
    )


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if "weight_bits" not in kind.__dataclass_fields__])
def test_fixed_levels_have_no_other_bits(kind: Any) -> None:
    assert kind().of_bits(32) is None
    with pytest.raises(InputError, match=f"since {kind.__name__} has fixed levels, got 8"):
        kind().of_bits(8)


def test_bits_that_a_method_has_not_say_what_it_has() -> None:
    with pytest.raises(UnsupportedBits) as error:
        LSQ().of_bits(9)
    assert (error.value.expected, error.value.got) == ("weight_bits from 2 to 8, or 32 for float", 9)
    assert str(error.value) == f"expected {error.value.expected}, got 9"


def test_every_class_in_the_folder_is_an_option() -> None:
    for module in pkgutil.iter_modules(quantizers.__path__):
        found = vars(importlib.import_module(f"{quantizers.__name__}.{module.name}")).values()
        kinds = {one for one in found if isinstance(one, type) and issubclass(one, Quantizer) and one is not Quantizer}
        assert kinds <= set(CLASSES), module.name


def test_edges_are_as_in_the_papers() -> None:
    assert [kind.edge_bits for kind in (LSQ, PACT, DoReFa, BWN, XNOR, TWN, TTQ)] == [8, 32, 32, 32, 32, 32, 32]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LSQ(weight_bits=1), "expected weight_bits from 2 to 8, or 32 for float, got 1"),
        (lambda: LSQ(activation_bits=16), "expected activation_bits from 2 to 8, or 32 for float, got 16"),
        (lambda: PACT(weight_bits=0), "expected weight_bits from 1 to 8, or 32 for float, got 0"),
        (lambda: PACT(activation_bits=1), "expected activation_bits from 2 to 8, or 32 for float, got 1"),
        (lambda: PACT(alpha=0.0), r"expected alpha, where inputs are cut off, in \(0, inf\), got 0.0"),
        (lambda: DoReFa(weight_bits=9), "expected weight_bits from 1 to 8, or 32 for float, got 9"),
        (lambda: DoReFa(activation_bits=0), "expected activation_bits from 1 to 8, or 32 for float, got 0"),
        (lambda: DoReFa(gradient_bits=1), "expected gradient_bits from 2 to 8, or 32 for float, got 1"),
        (lambda: BWN(gradient="none"), "expected gradient to be one of exact, paper, detach, got 'none'"),  # type: ignore[arg-type]
        (lambda: XNOR(gradient="none"), "expected gradient to be one of exact, paper, detach, got 'none'"),  # type: ignore[arg-type]
        (lambda: TWN(threshold=1.0), r"expected threshold, a multiple of the mean magnitude, in \(0, 1\), got 1.0"),
        (lambda: TTQ(threshold=0.0), r"expected threshold, a multiple of the greatest weight, in \(0, 1\), got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(build: Callable[[], Quantizer], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_command_line_options_are_the_defaults(path: Path) -> None:
    options = OmegaConf.load(path)
    quantizer = instantiate(options)
    assert quantizer == type(quantizer)()
    assert set(options) - {"_target_"} == set(vars(quantizer))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch 2.13's own compiler does
def test_the_fast_parts_compile() -> None:
    for quantizer in (LSQ(), PACT(), XNOR()):
        weight = (torch.randn(6, 4, 3, 3) / 3).requires_grad_()
        layer = conv(quantizer, weight)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        x = torch.randn(2, 4, 5, 5, requires_grad=True)
        results = [one(F.conv2d, None, x, weight) for one in (compiled, layer)]
        torch.testing.assert_close(*results)
        learned = [x, weight, *layer.parameters()]
        grads = [torch.autograd.grad(result.square().sum(), learned) for result in results]
        torch.testing.assert_close(*grads)
