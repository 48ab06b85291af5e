"""All quantizers, and what their tests have in common."""

from collections.abc import Callable
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from lightning_prune.quantization.quantizers.affine import Affine
from lightning_prune.quantization.quantizers.bwn import BWN
from lightning_prune.quantization.quantizers.dorefa import DoReFa
from lightning_prune.quantization.quantizers.lsq import LSQ
from lightning_prune.quantization.quantizers.pact import PACT
from lightning_prune.quantization.quantizers.quantizer import Activation, Quantizer
from lightning_prune.quantization.quantizers.twn import TWN
from lightning_prune.quantization.quantizers.xnor import XNOR

YAMLS = sorted((Path(__file__).parents[1] / "conf/quantizer").glob("*.yaml"))

DEFAULTS: list[Quantizer] = [instantiate(OmegaConf.load(path)) for path in YAMLS]
"""Each as the command line chooses it."""

QUANTIZERS: list[Quantizer] = [
    *DEFAULTS,
    Affine(weight_bits=4, activation_bits=4, per_channel=False),
    LSQ(weight_bits=2, activation_bits=2),
    PACT(weight_bits=1, activation_bits=2, alpha=2.0),
    DoReFa(weight_bits=3, activation_bits=3, gradient_bits=4),
    BWN(gradient="paper"),
    BWN(gradient="detach"),
    XNOR(scaling_map=True),
    TWN(per_channel=True),
]
"""Each, and some with other options that compute in another way."""


def close(tensor: Tensor, expected: list[float], tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(
        tensor.detach().double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance
    )


def rounded(
    module: Callable[[Tensor], Tensor], values: list[float], grad: list[float] | None = None
) -> tuple[Tensor, Tensor]:
    """What a module makes of one filter, and the gradient behind it."""
    weight = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    out = module(weight)
    out.backward(torch.ones_like(out) if grad is None else torch.tensor([grad], dtype=torch.float64))
    assert weight.grad is not None
    return out.detach()[0], weight.grad[0]


def prepared(quantizer: Quantizer, signed: bool) -> Activation | None:
    """What rounds activations, having seen some."""
    activation = quantizer.activation(signed)
    if activation is not None:
        activation.quantizing = True
        x = torch.randn(64, 9)
        activation.observe(x if signed else x.relu())
    return activation
