"""What quantizers have in common."""

import math

import torch

from lightning_prune.quantization.quantizers.rounding import sign


def test_sign_of_zero_is_one_and_the_gradient_ends_at_one() -> None:
    edge = 1 + torch.finfo(torch.float32).eps
    x = torch.tensor([-math.inf, -edge, -1.0, -1e-45, -0.0, 0.0, 0.7, 1.0, edge, math.nan], requires_grad=True)
    y = sign(x)
    assert y[:-1].tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1]
    assert y[-1].isnan()
    y.backward(torch.full_like(y, 3.0))
    assert x.grad is not None
    assert x.grad[:-1].tolist() == [0, 0, 3, 3, 3, 3, 3, 3, 0]
