"""The search of GAL step by step, on models so small that it can be worked by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError
from lightning_prune.models.resnet import ResNet
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.pruning.gal.search import AdversarialSearch
from lightning_prune.pruning.gal.soft_masks import find_maskable
from lightning_prune.pruning.gal.variants import OFFICIAL, PAPER, Variant
from lightning_prune.pruning.quota import Quota
from lightning_prune.slimming import couple

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def begin(model: nn.Module, variant: Variant = PAPER, kind: str | None = None, l1: float = 0.6) -> AdversarialSearch:
    found = find_maskable(model, couple(model, IMAGES), None if kind is None else [kind])  # type: ignore[list-item]
    return AdversarialSearch(model, found, variant, alignment=1.0, l1=l1, seed=0)


def step(search: AdversarialSearch, model: nn.Module, fill: float | None = None) -> None:
    """Make a step of SGD with learning rate 0, so that only the masks can move."""
    if fill is None:
        search.loss(model(IMAGES), torch.zeros(4, 10), 0.01, lambda parameters: None)[0].backward()
    else:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, fill)
    search.unfold()
    search.stepped()
    search.fold()
    model.zero_grad()


def five(values: list[float], variant: Variant) -> tuple[nn.Module, AdversarialSearch]:
    model = ResNet((2, 2, 1), (2, 2, 2))
    return model, begin(model, replace(variant, initial=lambda number, seed: torch.tensor(values)))


def test_official_update_without_gradient_of_the_loss() -> None:
    model, search = five([-1.0, -0.1, 0.005, 0.02, 1.0], OFFICIAL)
    for expected in ([0, 0, 0, 0.008, 0.988], [0, 0, 0, 0, 0.976], [0, 0, 0, 0, 0.960619]):
        step(search, model, fill=0.0)
        search.update(0.01)
        torch.testing.assert_close(search.masks, torch.tensor(expected), rtol=0, atol=1e-6)


def test_official_update_takes_the_last_gradient_and_the_papers_their_mean() -> None:
    for variant, expected in ((PAPER, 1 - 0.1 * 0.5), (OFFICIAL, 1 - 0.1 * 1.0)):
        model, search = five([1.0] * 5, variant)
        with torch.no_grad():
            for name in ("weight", "bias"):
                getattr(model.layer1[0].bn2, name).fill_(0.25)  # type: ignore[union-attr, index]
        search = AdversarialSearch(model, search.structures, replace(variant, initial=search._variant.initial), 1, 0, 0)
        for fill in (0.0, 1.0):  # the gradient of the mask is the sum over 2 scales and 2 shifts of 0.25 * fill
            step(search, model, fill)
        search.update(0.1)
        assert float(search.masks[0]) == pytest.approx(expected)


def test_discriminator_and_network_train_apart() -> None:
    model = ResNet((1, 1, 1))
    search = begin(model)
    before = [parameter.clone() for parameter in model.parameters()]
    loss, _ = search.loss(model(IMAGES), torch.randn(4, 10), 0.1, lambda parameters: None)
    assert all(parameter.grad is None for parameter in model.parameters())
    critic = search._adversary.discriminator
    assert critic is not None
    seen = [parameter.grad.clone() for parameter in critic.parameters() if parameter.grad is not None]
    assert len(seen) == 8
    assert any(gradient.any() for gradient in seen)
    loss.backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(critic.parameters(), seen, strict=True))  # type: ignore[arg-type]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def test_loss_is_the_papers() -> None:
    torch.manual_seed(1)
    pruned, baseline = torch.randn(2, 6, 10, dtype=torch.float64)
    model = ResNet((1, 1, 1))
    for variant in (PAPER, OFFICIAL):
        search = begin(model, variant)
        loss, _ = search.loss(pruned, baseline, 0.0, lambda parameters: None)
        scores = search._adversary.discriminator(pruned)  # type: ignore[misc]
        expected = torch.log1p(torch.exp(-scores)).mean()
        torch.testing.assert_close(loss, expected + (pruned - baseline).square().mean())


def test_a_search_that_has_diverged_is_stopped() -> None:
    model, search = five([1.0] * 5, PAPER)
    step(search, model, fill=math.nan)
    with pytest.raises(InputError, match="expected a search with finite gradients, got NaN or infinity: it has diverg"):
        search.update(0.1)


def test_a_zero_mask_silences_a_block_and_comes_back_if_the_loss_wants_it() -> None:
    model = ResNet((2, 1, 1)).eval()
    search = begin(model, replace(PAPER, initial=lambda number, seed: torch.tensor([1.0, 0.0, 1.0, 1.0])))
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(model.layer1[1](x), x)
    before = model.layer1[1].conv1.weight.grad  # type: ignore[union-attr]
    assert before is None
    with torch.no_grad():
        search._soft.plain["layer1.1.bn2.weight"].fill_(1.0)
    step(search, model, fill=-1.0)
    search.update(0.1)
    assert float(search.masks[1]) == pytest.approx(0.1 * (16 - 0.6), rel=1e-5)


def test_no_layer_loses_all_of_its_channels() -> None:
    model = vgg16_bn()
    found = find_maskable(model, couple(model, torch.randn(2, 3, 32, 32)), None)
    search = AdversarialSearch(model, found, PAPER, alignment=1.0, l1=1e6, seed=0)
    step(search, model, fill=0.0)
    search.update(0.1)
    pruned = search.settle(None)
    assert [int((~gone).sum()) for gone in pruned] == [1] * 13
    kept = zip(search.masks.split([len(gone) for gone in pruned]), pruned, strict=True)
    assert all(float(mask[~gone].min()) > 0 for mask, gone in kept)


def test_settling_removes_as_many_as_asked_lowest_first_and_keeps_the_others_alive() -> None:
    model, search = five([0.5, 0.004, 0.001, 0.003, 0.002], PAPER)
    step(search, model, fill=0.0)
    search.update(0.01)  # takes the last four to zero
    assert search.reached(Quota(0.4, "global"))
    assert search.reached(Quota(0.8, "global"))
    removed = [bool(gone) for gone in search.settle(Quota(0.4, "global"))]
    assert removed == [False, False, True, False, True]
    assert (search.masks > 0).tolist() == [True, True, False, True, False]
    assert not five([1.0] * 5, PAPER)[1].reached(Quota(0.2, "global"))


def test_with_a_target_the_l1_norm_takes_the_lowest_masks_and_leaves_the_others() -> None:
    model, search = five([0.5, 0.4, 0.1, 0.3, 0.2], PAPER)
    step(search, model, fill=0.0)
    search.update(0.1, quota=Quota(0.4, "global"), pressure=2.0)
    torch.testing.assert_close(search.masks, torch.tensor([0.5, 0.4, 0.0, 0.3, 0.08]))


def test_more_than_the_layers_can_lose_is_refused() -> None:
    model = vgg16_bn()
    found = find_maskable(model, couple(model, torch.randn(2, 3, 32, 32)), None)
    with pytest.raises(InputError, match=r"sparsity of at most 0\.9969"):
        AdversarialSearch(model, found, PAPER, alignment=1.0, l1=1.0, seed=0).settle(Quota(0.999, "global"))


def test_masks_look_ahead_only_in_training() -> None:
    model, search = five([1.0] * 5, PAPER)
    for _ in range(3):
        step(search, model, fill=0.0)
        search.update(0.1)
    scale: Tensor = model.layer1[0].bn2.weight  # type: ignore[union-attr, index]
    ahead = scale.clone()
    search.fold_masks()
    torch.testing.assert_close(scale[0].detach(), search.masks[0])
    assert float(ahead[0].detach()) < float(search.masks[0])
    search.fold()
    assert torch.equal(scale, ahead)


def test_goes_on_from_its_state_to_the_same_bits() -> None:
    ends = []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = ResNet((2, 1, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        search = begin(model)
        for number in range(6):
            if interrupted and number == 3:
                state = search.state_dict()
                torch.manual_seed(5)
                other = ResNet((2, 1, 1))
                other.load_state_dict(model.state_dict())
                optimizer_state = optimizer.state_dict()
                model, search = other, begin(other)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
                optimizer.load_state_dict(optimizer_state)
                search.load_state_dict(state)
            optimizer.zero_grad()
            loss, terms = search.loss(model(IMAGES), torch.ones(4, 10), 0.01, lambda parameters: None)
            loss.backward()
            search.unfold()
            optimizer.step()
            search.stepped()
            search.fold()
            if number % 2:
                search.update(0.01)
        ends.append((model.state_dict(), search.masks, terms))
    (one, masks, terms), (other_state, other_masks, other_terms) = ends
    assert all(torch.equal(tensor, other_state[name]) for name, tensor in one.items())
    assert torch.equal(masks, other_masks)
    assert terms == other_terms


def test_census_counts_the_masks() -> None:
    _, search = five([0.0, 0.1, 0.9, 1.0, 3.0], PAPER)
    census = search.census()
    assert census["removed"] == census["masks/0"] == pytest.approx(0.2)
    assert [census[f"masks/{name}"] for name in ("0-0.25", "0.25-0.5", "0.75-1", "1-")] == pytest.approx(
        [0.2, 0, 0.4, 0.2]
    )
    assert [census[f"kept/layer{name}"] for name in ("1.0", "1.1", "2.0", "2.1", "3.0")] == [0, 1, 1, 1, 1]
