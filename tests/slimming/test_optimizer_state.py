"""The momentum of a masked model, cut to its slim one: a step of both has to be the same step."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adafactor, Adam, AdamW, Optimizer

from lightning_prune.errors import InputError
from lightning_prune.models.resnet import ResNet
from lightning_prune.pruning.held_masks import HeldMasks
from lightning_prune.slimming.optimizer_state import check_optimizer_state, load_optimizer_state, slice_optimizer_state
from lightning_prune.slimming.slim import slimmed
from lightning_prune.slimming.traced_model import TracedModel

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda parameters: Adam(parameters, lr=1e-3, amsgrad=True),
    "adamw": lambda parameters: AdamW(parameters, lr=1e-3, weight_decay=0.1),
}
IMAGES = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 10


def step(model: nn.Module, optimizer: Optimizer, held: HeldMasks | None = None) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(IMAGES), LABELS).backward()
    optimizer.step()
    if held is not None:
        held.enforce((optimizer,))


def masks_of(model: nn.Module) -> dict[str, Tensor]:
    """Return masks that take scattered channels from a residual stream and from inside of its blocks."""
    lost = {
        "bn1": (1, 4),  # the first stream, which all of its blocks write to
        "layer1.0.bn2": (1, 4),
        "layer1.0.bn1": (0, 2, 5),
        "layer2.0.bn1": (3, 7, 8, 15),
        "layer3.0.bn1": (0, 30, 31),
    }
    masks = {}
    for name, channels in lost.items():
        convolution = name.replace("bn", "conv")
        keep = torch.ones(len(model.get_parameter(f"{name}.weight")), dtype=torch.bool)
        keep[list(channels)] = False
        masks |= {f"{name}.weight": keep, f"{name}.bias": keep, f"{convolution}.weight": keep[:, None, None, None]}
    return masks


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_slim_step_with_sliced_state_is_the_masked_step_sliced(make: Callable[..., Optimizer]) -> None:
    model = ResNet((1, 1, 1), shortcut="B").double()
    optimizer = make(model.parameters())
    held = HeldMasks(model, masks_of(model))
    held.enforce()
    for _ in range(3):
        step(model, optimizer, held)
    result = slimmed(model, TracedModel(model, (IMAGES[:2],)))
    small = result.model
    assert len(small.get_parameter("bn1.weight")) == len(model.get_parameter("bn1.weight")) - 2
    before = copy.deepcopy(small)
    states = slice_optimizer_state(optimizer.state_dict(), dict(model.named_parameters()), result.kept)
    follower, stranger = make(small.parameters()), make(before.parameters())
    follower.param_groups[0]["initial_lr"] = 7.0
    load_optimizer_state(follower, small, states)
    assert follower.param_groups[0]["initial_lr"] == 7.0
    step(small, follower)
    step(before, stranger)
    step(model, optimizer, held)
    expected = dict(slimmed(model, TracedModel(model, (IMAGES[:2],))).model.named_parameters())
    assert expected.keys() == dict(small.named_parameters()).keys()
    for name, parameter in small.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-9, atol=1e-12)
    # Without what was inherited it is another step.
    assert not torch.allclose(before.get_parameter("fc.weight"), expected["fc.weight"], rtol=1e-5, atol=1e-7)


def test_positions_are_taken_along_their_dimensions_and_what_is_gone_is_left_out() -> None:
    wide, lost, bias = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))
    optimizer = Adam([wide, lost, bias])
    for number, parameter in enumerate((wide, lost, bias)):
        parameter.grad = torch.arange(parameter.numel(), dtype=torch.float).reshape(parameter.shape) + number
    optimizer.step()
    kept = {"wide": {0: torch.tensor([2, 0]), 1: torch.tensor([1, 3])}, "lost": {0: torch.tensor([], dtype=torch.long)}}
    states = slice_optimizer_state(optimizer.state_dict(), {"wide": wide, "lost": lost, "bias": bias}, kept)
    assert list(states) == ["wide", "bias"]
    assert torch.equal(states["wide"]["step"], torch.tensor(1.0))
    torch.testing.assert_close(states["wide"]["exp_avg"], 0.1 * torch.tensor([[9.0, 11.0], [1.0, 3.0]]))
    torch.testing.assert_close(states["wide"]["exp_avg_sq"], 1e-3 * torch.tensor([[81.0, 121.0], [1.0, 9.0]]))
    torch.testing.assert_close(states["bias"]["exp_avg"], torch.tensor(0.2))


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    layer = nn.Linear(3, 2)
    optimizer = Adafactor(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    with pytest.raises(
        InputError, match=r"got row_var of weight of shape \(2, 1\) for \(2, 3\); begin without"
    ) as raised:
        slice_optimizer_state(optimizer.state_dict(), dict(layer.named_parameters()), {})
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="got row_var of weight"):
        check_optimizer_state(partial(Adafactor, lr=0.1))
    check_optimizer_state(partial(AdamW, lr=0.1))
    with pytest.raises(InputError, match="expected the optimizer of all 1 parameters, got one of 2"):
        slice_optimizer_state(optimizer.state_dict(), {"weight": layer.weight}, {})
    with pytest.raises(InputError, match=r"expected momentum_buffer of bias \(2,\), got \(3,\)"):
        load_optimizer_state(SGD(layer.parameters(), lr=0.1), layer, {"bias": {"momentum_buffer": torch.zeros(3)}})
