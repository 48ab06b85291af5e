"""The discriminator of GAL: it tells the outputs of a baseline network from those of the network that is pruned."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def discriminator(inputs: int, seed: int) -> nn.Sequential:
    """Build the discriminator: four linear layers with leaky ReLU between them, ending in one logit.

    The weights are drawn from a generator of their own.

    Args:
        inputs: Number of outputs of the networks, such as classes.
        seed: Seed of its weights.

    Returns:
        A module from `(n, inputs)` to `(n, 1)`: how likely an output is the baseline's, before the sigmoid.

    Reference:
        Lin et al., Towards Optimal Structured CNN Pruning via Generative Adversarial Learning, 2019, arXiv:1903.09291,
        section 4.1 (sizes); its equation 2 wants the probability itself.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for layer in _linear_layers(inputs):
        bound = layer.in_features**-0.5  # as PyTorch draws it
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [layer, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def official_discriminator(inputs: int, seed: int) -> nn.Sequential:
    """Build the discriminator as the paper's code does.

    It has nothing between its linear layers, begins with weights N(0, 0.01) and biases 0, and ends in a sigmoid, though
    the loss takes what comes out for a logit.

    Args:
        inputs: Number of outputs of the networks, such as classes.
        seed: Seed of its weights.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = _linear_layers(inputs)
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01, generator=generator)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, nn.Sigmoid())


def _linear_layers(inputs: int) -> list[nn.Linear]:
    """Return the layers without values in their weights."""
    sizes = (inputs, 128, 256, 128, 1)
    made = [nn.Linear(before, after, device="meta") for before, after in itertools.pairwise(sizes)]
    return [layer.to_empty(device="cpu") for layer in made]


def discriminator_loss(baseline: Tensor, pruned: Tensor) -> Tensor:
    """Return what the discriminator minimizes: cross entropy, and its adversarial regularization.

    The last term, `-log D` of the pruned network's outputs, rewards it for taking them for the baseline's, so that it
    does not win before the network has learned.

    Args:
        baseline: `(n, 1)` logits that it gives the baseline's outputs.
        pruned: `(n, 1)` logits that it gives the pruned network's.

    Reference:
        Lin et al., 2019, arXiv:1903.09291, equation 2 and section 3.3.
    """
    seen_through = F.binary_cross_entropy_with_logits(pruned, torch.zeros_like(pruned))
    return taken_for_baseline(baseline) + seen_through + taken_for_baseline(pruned)


def taken_for_baseline(scores: Tensor) -> Tensor:
    """Return the mean of `-log D`: what the pruned network minimizes, so that it is taken for the baseline.

    Args:
        scores: `(n, 1)` logits.
    """
    return F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))
