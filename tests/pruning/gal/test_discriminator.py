"""The discriminator of GAL against the constants of the specification and the formulas of the paper in float64."""

import math

import pytest
import torch

from lightning_prune.pruning.gal.discriminator import (
    discriminator,
    discriminator_loss,
    official_discriminator,
    taken_for_baseline,
)


@pytest.mark.parametrize("build", [discriminator, official_discriminator])
def test_has_the_papers_size_and_leaves_the_random_state_alone(build: object) -> None:
    before = torch.random.get_rng_state()
    first, second, other = (build(10, seed) for seed in (1, 1, 2))  # type: ignore[operator]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sum(parameter.numel() for parameter in first.parameters()) == 67_457
    outputs = torch.randn(3, 10)
    assert first(outputs).shape == (3, 1)
    assert torch.equal(first(outputs), second(outputs))
    assert not torch.equal(first(outputs), other(outputs))


def test_losses_of_an_undecided_discriminator() -> None:
    undecided = torch.zeros(4, 1, dtype=torch.float64)
    assert float(discriminator_loss(undecided, undecided)) == pytest.approx(3 * math.log(2))
    assert float(taken_for_baseline(undecided)) == pytest.approx(math.log(2))


def test_official_losses_of_an_undecided_discriminator() -> None:
    undecided = torch.full((4, 1), 0.5, dtype=torch.float64)  # its sigmoid's output, taken for a logit
    assert float(discriminator_loss(undecided, undecided)) == pytest.approx(1.92223, abs=1e-5)
    assert float(taken_for_baseline(undecided)) == pytest.approx(0.47408, abs=1e-5)


def test_losses_are_the_papers() -> None:
    torch.manual_seed(0)
    baseline, pruned = torch.randn(2, 5, 1, dtype=torch.float64)
    real, fake = baseline.sigmoid(), pruned.sigmoid()
    expected = -(real.log().mean() + (1 - fake).log().mean() + fake.log().mean())
    torch.testing.assert_close(discriminator_loss(baseline, pruned), expected)
    torch.testing.assert_close(taken_for_baseline(pruned), -fake.log().mean())


def test_official_discriminator_is_affine_before_its_sigmoid() -> None:
    critic = official_discriminator(4, 0).double()
    with torch.no_grad():
        for parameter in critic.parameters():  # larger, so that a bend would show
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
        one, other = torch.randn(2, 1, 4, dtype=torch.float64)
        middle = critic[:-1]((one + other) / 2)
        torch.testing.assert_close(middle, (critic[:-1](one) + critic[:-1](other)) / 2)
        bent = discriminator(4, 0).double()
        assert (bent((one + other) / 2) - (bent(one) + bent(other)) / 2).abs() > 1e-6
