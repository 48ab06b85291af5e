"""The controls of a slim model: the same architecture from random weights, for as many epochs or as much compute.

Reference:
    Liu, Sun, Zhou, Huang, Darrell, "Rethinking the Value of Network Pruning", 2019, arXiv:1810.05270: a pruned
    architecture that trains from random weights for as long as the large network did often ends as good as the pruned
    one. "Scratch-E" is as many epochs, "Scratch-B" as much compute.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_prune.graph import holder


def reinitialize(small: nn.Module, fresh: nn.Module) -> None:
    """Give a slim model the random weights of a dense one just built, cut to its widths and scaled to them.

    So whatever initialization the model's code has is that of its slim version: weights are drawn independently, so
    that the first ones are as good as others, and a weight that has lost channels is multiplied by the root of how many
    times fewer its layer has, outputs of a convolution, inputs of a linear layer. Weights drawn from He's normal
    distribution over the fan-out, as the convolutions here and in the paper's code, or uniformly over the fan-in, as
    torch's linear layers, are distributed as if they had been drawn at the slim width.

    Args:
        small: A slim model; its parameters change, and its batch norms forget what they have seen.
        fresh: A dense model of the same code, just built.
    """
    drawn = dict(fresh.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            part = drawn[name][tuple(slice(size) for size in parameter.shape)]
            parameter.copy_(part * _scale(small.get_submodule(holder(name)), drawn[name], parameter))
    for module in small.modules():
        if isinstance(module, _NormBase):
            module.reset_running_stats()


def _scale(module: nn.Module, drawn: Tensor, parameter: Tensor) -> float:
    """Return by what a tensor of a module is multiplied when it has been cut."""
    if parameter.ndim < 2 or not isinstance(module, _ConvNd | nn.Linear):
        return 1.0
    dim = 0 if isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd) else 1
    return math.sqrt(drawn.shape[dim] / parameter.shape[dim])


def epochs_of_same_compute(epochs: int, dense_macs: int, slim_macs: int, longest: float | None) -> int:
    """Return for how many epochs a slim model trains with the compute of a dense one, rounded down.

    Args:
        epochs: Those of the dense one.
        dense_macs: Of one image.
        slim_macs: Of one image.
        longest: At most as many times as long; None for no limit. In the paper it is 2 on ImageNet, where a network
            with less than half of the operations trains for twice the epochs, and there is none on CIFAR.

    >>> epochs_of_same_compute(160, 125_485_696, 90_907_264, None), epochs_of_same_compute(90, 300, 100, 2)
    (220, 180)
    """
    times = dense_macs / max(1, slim_macs)
    return int(epochs * (times if longest is None else min(times, longest)))
