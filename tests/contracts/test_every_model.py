"""Every model in conf/ gives logits, costs what its layers compute, and shrinks by just what is masked."""

import copy
import functools
import math
from collections import defaultdict
from typing import Any

import pytest
import torch
from configured import content, options
from hydra.utils import instantiate
from networks import difference, randomise
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune import profile, slim
from lightning_prune.slimming.prunable_groups import prunable_groups

IMAGES = ((3, 32), (1, 28), (1, 8))
"""Channels and pixels a side of the images of the data in conf/."""

LIBRARIES: dict[str, tuple[str, dict[str, Any]]] = {
    "torchvision": ("torchvision", {"name": "squeezenet1_1"}),
    "timm": ("timm", {"name": "resnet10t"}),
    "huggingface": ("transformers", {"name": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
}
"""The library that a file needs, and a small network of it."""

every_model = pytest.mark.parametrize("name", options("model"))


@functools.cache
def built(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network as its file describes it, in eval mode, and the first images that it takes."""
    library, chosen = LIBRARIES.get(name, ("torch", {}))
    pytest.importorskip(library)
    model = OmegaConf.merge(content("model", name), chosen)
    for channels, size in IMAGES:
        network, images = instantiate(model, num_classes=7, in_channels=channels), torch.randn(2, channels, size, size)
        try:
            network.eval()(images)
        except RuntimeError:  # a linear layer for images of another size
            continue
        return network, images
    raise AssertionError(f"{name} takes none of {IMAGES}")


def multiplications(network: nn.Module, images: Tensor) -> int:
    """Count those of convolutions and linear layers for one image as torch does, twice each with its addition."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images[:1])
    aten = torch.ops.aten
    counts = counter.get_flop_counts()["Global"]
    return sum(counts.get(operator, 0) for operator in (aten.convolution, aten.mm, aten.addmm)) // 2


@every_model
def test_every_model_gives_logits(name: str) -> None:
    network, images = built(name)
    assert network(images).shape == (2, 7)


@every_model
def test_every_model_costs_what_it_computes(name: str) -> None:
    network, images = built(name)
    costs = profile(network, images)
    assert costs.parameters == sum(math.prod(parameter.shape) for parameter in network.parameters())
    assert costs.macs == multiplications(network, images) > 0


@every_model
def test_every_model_shrinks_by_what_is_masked_and_computes_the_same(name: str) -> None:
    network, images = built(name)
    masked = randomise(copy.deepcopy(network))
    gone: dict[tuple[str, int], int] = defaultdict(int)
    for group in prunable_groups(network, images):
        units = torch.randperm(group.size)[: max(1, group.size // 2)]
        group.zero(masked, units)
        for member in group.members:
            gone[member.name, member.dim] += member.index[units].numel()
    small = slim(masked, images)
    assert difference(masked, small, torch.randn_like(images)) < 1e-5
    shapes = {key: parameter.shape for key, parameter in network.named_parameters()}
    left = {key: [size - gone[key, dim] for dim, size in enumerate(shape)] for key, shape in shapes.items()}
    assert {key: list(parameter.shape) for key, parameter in small.named_parameters()} == left
    costs = profile(small, images)
    assert costs.parameters == sum(map(math.prod, left.values())) < profile(network, images).parameters
    assert costs.macs == multiplications(small, images) < multiplications(network, images)
