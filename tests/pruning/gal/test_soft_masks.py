"""Soft masks folded into parameters against a model that multiplies by them, trained by any optimizer in float64."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from lightning_prune.errors import InputError
from lightning_prune.models.densenet import densenet40
from lightning_prune.models.googlenet import Inception
from lightning_prune.models.resnet import ResNet
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.pruning.gal.soft_masks import Maskable, SoftMasks, find_maskable
from lightning_prune.slimming import couple


class Block(nn.Module):
    """A residual block whose output is multiplied by a mask, if there is one, before it is added."""

    def __init__(self, mask: Tensor | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 2)
        self.mask = None if mask is None else nn.Parameter(mask)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(x))
        out = out if self.mask is None else self.mask * out
        logits: Tensor = self.fc(torch.relu(out + x).mean((2, 3)))
        return logits


OPTIMIZERS: list[Callable[..., Optimizer]] = [
    partial(SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    partial(AdamW, lr=0.01, weight_decay=0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("start", [0.7, -0.4, 0.0])
def test_trains_as_a_model_that_multiplies_by_the_masks(optimizer: Callable[..., Optimizer], start: float) -> None:
    torch.manual_seed(0)
    mask = torch.tensor([start], dtype=torch.float64)
    multiplied, folded = Block(mask.clone()).double(), Block().double()
    folded.load_state_dict(multiplied.state_dict(), strict=False)
    images, target = torch.randn(8, 3, 5, 5, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    soft = SoftMasks(folded, find_maskable(folded, couple(folded, images), None))
    soft.fold(mask)
    weights = [parameter for name, parameter in multiplied.named_parameters() if name != "mask"]
    optimizers = optimizer(weights), optimizer(folded.parameters())
    for _ in range(4):
        for model, own in zip((multiplied, folded), optimizers, strict=True):
            own.zero_grad()
            loss = (model(images) - target).square().sum()
            loss.backward()
            if model is folded:
                gradient = soft.unfold(mask)
            own.step()
        soft.stepped()
        assert multiplied.mask is not None
        assert multiplied.mask.grad is not None
        torch.testing.assert_close(gradient, multiplied.mask.grad)
        with torch.no_grad():
            multiplied.mask -= 0.05 * multiplied.mask.grad
            multiplied.mask.grad = None
            mask = multiplied.mask.detach().clone()
        soft.fold(mask)
        torch.testing.assert_close(folded.bn.weight.detach(), (mask * multiplied.bn.weight).detach())
    for name, parameter in multiplied.named_parameters():
        if name.startswith("bn"):
            torch.testing.assert_close(soft.plain[name], parameter.detach())
        elif name != "mask":
            torch.testing.assert_close(dict(folded.named_parameters())[name], parameter)
    torch.testing.assert_close(folded.eval()(images), multiplied.eval()(images))


def test_a_skipped_step_leaves_everything_as_it_was() -> None:
    torch.manual_seed(0)
    model, mask = Block(), torch.tensor([0.5])
    images = torch.randn(4, 3, 5, 5)
    soft = SoftMasks(model, find_maskable(model, couple(model, images), None))
    soft.fold(mask)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    model(images).sum().backward()
    soft.unfold(mask)
    soft.fold(mask)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())


def found(model: nn.Module, size: int = 32, kinds: list[str] | None = None) -> list[Maskable]:
    return find_maskable(model, couple(model, torch.randn(2, 3, size, size)), kinds)  # type: ignore[arg-type]


def test_takes_the_largest_structures_that_a_model_has() -> None:
    assert len(found(ResNet((3, 3, 3)))) == 9
    both = nn.Sequential(Inception(3, 2, 2, 2, 2, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    assert [one.size for one in found(both, 8)] == [1, 1, 1, 1]
    vgg = found(vgg16_bn())
    assert sum(one.size for one in vgg) == 4224
    assert len(vgg) == 13
    dense = found(densenet40())
    assert sum(one.size for one in dense) >= 36 * 12


def test_several_kinds_can_be_masked_at_once() -> None:
    joint = found(ResNet((2, 2, 2)), kinds=["block", "channel"])
    assert [one.size for one in joint] == [1] * 6 + [16, 16, 32, 32, 64, 64]


def test_a_channel_of_a_dense_block_is_masked_behind_each_norm_that_reads_it() -> None:
    model = densenet40(growth=2).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    one = next(m for m in found(model, 8) if m.name == "block1.0.conv")
    names = {gate.name for gate in one.gates}
    assert "block1.1.bn.weight" in names
    assert "transition1.0.bias" in names
    assert "block1.0.bn.weight" not in names
    masks = torch.ones(2, dtype=torch.float64)
    masks[1] = 0.0
    SoftMasks(model, [one]).fold(masks)
    before = model(images)
    with torch.no_grad():
        model.block1[0].conv.weight[1] += 1.0  # type: ignore[index, union-attr]
    torch.testing.assert_close(model(images), before)


def test_frozen_structures_are_left_alone_and_a_model_without_any_is_refused() -> None:
    model = ResNet((1, 1, 1))
    model.layer1.requires_grad_(False)
    assert len(found(model)) == 2
    with pytest.raises(InputError, match=r"expected a Linear with structures that can be masked \(block, branch"):
        find_maskable(nn.Linear(3, 2), couple(nn.Linear(3, 2), torch.randn(2, 3)), None)
