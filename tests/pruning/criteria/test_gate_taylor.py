"""The squared gradient of a gate, against a gate that is really there."""

import torch
from torch import Tensor, nn

from lightning_prune.pruning.criteria.gate_taylor import GateTaylor
from lightning_prune.pruning.criteria.taylor import Taylor


def change(parameter: Tensor) -> Tensor:
    """What a first-order criterion is shown of one parameter: `(n_channels, size)`."""
    assert parameter.grad is not None
    return (parameter * parameter.grad).detach().reshape(len(parameter), -1)


def gated(last: nn.Module, *before: nn.Module) -> Tensor:
    """Run a loss backward through `last` and a gate of value 1 behind it; return the gate's gradient."""
    gate = torch.ones(5, 1, 1, dtype=torch.float64, requires_grad=True)
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    loss = (nn.Sequential(*before, last).double()(images) * gate).relu().square().mean()
    loss.backward()
    assert gate.grad is not None
    return gate.grad.view(-1)


def test_gate_taylor_is_the_squared_gradient_of_a_gate_behind_batch_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    gradient = gated(norm, nn.Conv2d(3, 5, 3))
    assert GateTaylor.reads[0] == ("scale", "shift")
    torch.testing.assert_close(GateTaylor()(torch.cat([change(norm.weight), change(norm.bias)], 1)), gradient.square())


def test_gate_taylor_is_the_squared_gradient_of_a_gate_behind_a_bare_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3)
    gradient = gated(conv)
    assert GateTaylor.reads[1] == ("filter", "bias")
    torch.testing.assert_close(GateTaylor()(torch.cat([change(conv.weight), change(conv.bias)], 1)), gradient.square())


def test_before_batch_norm_weights_have_a_taylor_score_and_the_filter_as_a_whole_has_none() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, bias=False)
    gated(nn.BatchNorm2d(5, eps=1e-15), conv)  # scaling a filter changes nothing
    assert (1e9 * GateTaylor()(change(conv.weight)) < Taylor()(change(conv.weight))).all()
