"""Time how long slimming takes, check what comes out, and run the same networks through Torch-Pruning.

A fraction of the units of every group is masked, chosen at random. `couple`, `slim` (which couples, cuts and proves the
result), `prunable_groups` and Torch-Pruning, which builds its graph and prunes the same fraction of all layers but the
last, take turns, round after round; times are medians. The difference is that of the outputs of the slim and the
masked network over the largest output. What Torch-Pruning makes is compared with the network in which all that belongs
to the channels that it removed is zero: equal (to 1e-4), different, or stopped by an error.

    python scripts/benchmark_slimming.py resnet56 torchvision:resnet50 timm:resnet50d --threads 2
    python scripts/benchmark_slimming.py torchvision:resnet50 --latency --batch-size 16

With --latency it is the slim network's speed that is measured: the last column says how much longer it takes than its
share of the multiply-accumulates promises.
"""

import argparse
import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch_pruning
from architectures import architecture
from benchmark_int8 import CPU, in_blocks
from benchmarking import interleaved, parse_options, seconds
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_prune.reporting import macs
from lightning_prune.slimming import PrunableGroups, couple, prunable_groups, slim

TOLERANCE = 1e-4
"""Largest relative difference of outputs that count as equal."""


@torch.no_grad()
def outputs(model: nn.Module, example: Tensor) -> list[Tensor]:
    """Return the tensors that a network gives."""
    return [output for output in tree_leaves(model(example)) if isinstance(output, Tensor)]


def difference(model: nn.Module, reference: nn.Module, example: Tensor) -> float:
    """Return the largest difference of the outputs of two networks, relative to the largest output of the second."""
    pairs = list(zip(outputs(model, example), outputs(reference, example), strict=True))
    return max(float((one - other).abs().max()) for one, other in pairs) / max(float(o.abs().max()) for _, o in pairs)


def size(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(map(torch.numel, model.parameters()))


def masked(model: nn.Module, groups: PrunableGroups, fraction: float) -> nn.Module:
    """Return a copy in which a fraction of the units of each group is zero, at least one is left."""
    generator = torch.Generator().manual_seed(0)
    result = copy.deepcopy(model)
    for group in groups:
        count = min(round(fraction * group.size), group.size - 1)
        group.zero(result, torch.randperm(group.size, generator=generator)[:count])
    return result


# Torch-Pruning --------------------------------------------------------------------------------------------------------


def prune(model: nn.Module, example: Tensor, last: list[str], fraction: float) -> nn.Module:
    """Let Torch-Pruning remove a fraction of the channels of all layers but the last, in place; always the same."""
    torch.manual_seed(0)
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=fraction,
        ignored_layers=[model.get_submodule(name) for name in last],
    )
    pruner.step()
    return model


def masked_alike(model: nn.Module, example: Tensor, last: list[str], fraction: float) -> nn.Module:
    """Return a copy in which everything is zero that belongs to the channels that Torch-Pruning removes.

    It prunes a copy in which each number is its own position, so that what is left of this says what goes.
    """
    positions = copy.deepcopy(model).double()
    for parameter in positions.parameters():
        parameter.data = torch.arange(parameter.numel()).view(parameter.shape).to(parameter)
    left = dict(prune(positions, example.double(), last, fraction).named_parameters())
    result = copy.deepcopy(model)
    for name, parameter in result.named_parameters():
        module = result.get_submodule(name.rpartition(".")[0])
        dim = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) and parameter.ndim > 1 else 0
        stays = torch.zeros(parameter.shape, dtype=torch.bool)
        if name in left:
            stays.view(-1)[left[name].reshape(-1).long()] = True
        others = [other for other in range(parameter.ndim) if other != dim]
        parameter.data *= stays.any(dim=others, keepdim=True) if others else stays
    return result


def verdict(model: nn.Module, example: Tensor, last: list[str], fraction: float) -> str:
    """Return what comes of Torch-Pruning: equal, different or stopped, with the parameters that are left."""
    try:
        pruned = prune(copy.deepcopy(model), example, last, fraction)
        outputs(pruned, example)
    except Exception as error:  # of whatever kind: that is what is reported
        return f"stopped: {type(error).__name__}"
    apart = difference(pruned, masked_alike(model, example, last, fraction), example)
    return f"{'equal' if apart <= TOLERANCE else f'different by {apart:.0e}'}, {size(pruned) / size(model):.0%} params"


# The tables -----------------------------------------------------------------------------------------------------------


def print_slimming(name: str, options: argparse.Namespace) -> None:
    """Print how long one network takes, and what comes out."""
    model, example = architecture(name)
    groups = prunable_groups(model, example)
    last = list(dict(groups.fixed.get("are outputs of the model", ())))
    pruned = masked(model, groups, options.fraction)
    small = slim(pruned, example)
    peer = verdict(model, example, last, options.fraction)
    runs: dict[str, Callable[[], object]] = {
        "groups": lambda: prunable_groups(model, example),
        "couple": lambda: couple(pruned, example),
        "slim": lambda: slim(pruned, example),
    }
    if not peer.startswith("stopped"):
        runs["peer"] = lambda: prune(copy.deepcopy(model), example, last, options.fraction)
    times = interleaved({key: partial(seconds, run, CPU) for key, run in runs.items()}, options.rounds)
    taken = {key: f"{statistics.median(found):.2f}" for key, found in times.items()}
    apart, work = difference(small, pruned, example), macs(small, example) / macs(model, example)
    print(
        f"{name:>32} {taken['groups']:>6} {taken['couple']:>6} {taken['slim']:>6} {apart:>10.0e} "
        f"{size(small) / size(model):>6.0%} {work:>6.0%} {taken.get('peer', '-'):>6}  {peer}",
        flush=True,
    )


def print_latency(name: str, options: argparse.Namespace) -> None:
    """Print how long one network runs before and after slimming."""
    model, example = architecture(name)
    small = slim(masked(model, prunable_groups(model, example), options.fraction), example)
    batch = torch.randn(options.batch_size, *example.shape[1:])
    with torch.no_grad():
        runs = {key: in_blocks(partial(one, batch)) for key, one in {"dense": model, "slim": small}.items()}
        times = interleaved(runs, options.rounds)
    ratio = statistics.median(one / other for one, other in zip(times["slim"], times["dense"], strict=True))
    work = macs(small, example) / macs(model, example)
    dense, slimmed = (1000 * statistics.median(times[key]) for key in ("dense", "slim"))
    print(
        f"{name:>32} {dense:>9.1f} {slimmed:>9.1f} {ratio:>8.3f} {work:>8.3f} {ratio / work:>8.2f}",
        flush=True,
    )


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="resnet56 for example, torchvision:resnet50 or timm:resnet50d")
    parser.add_argument("--fraction", type=float, default=0.25, help="of the units of each group that is masked")
    parser.add_argument("--latency", action="store_true", help="measure the networks instead of slimming itself")
    parser.add_argument("--batch-size", type=int, default=16, help="images in a forward pass, for --latency")
    options = parse_options(parser)
    if options.latency:
        print(f"{'network':>32} {'dense ms':>9} {'slim ms':>9} {'latency':>8} {'MACs':>8} {'quotient':>8}")
    else:
        print(
            f"{'seconds:':>32} {'groups':>6} {'couple':>6} {'slim':>6} {'difference':>10} {'params':>6} {'MACs':>6} "
            f"{'TP s':>6}  Torch-Pruning"
        )
    for name in options.models:
        try:
            (print_latency if options.latency else print_slimming)(name, options)
        except (ValueError, RuntimeError) as error:  # of one network, which does not end the others
            print(f"{name:>32} {type(error).__name__}: {' '.join(str(error).split())}", flush=True)


if __name__ == "__main__":
    main()
