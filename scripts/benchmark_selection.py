"""Time the choice of the smallest weights among very many against torch.kthvalue and torch.sort.

All masks are computed from the weights as a pruner does, over all tensors together: absolute values, choice, masks held
at zero; once as the first choice of a run, and once as a later one, which goes on from masks in force at half the
sparsity. kthvalue and sort get absolute values ready and in one tensor, and make no masks. All run in turn, round after
round; ratios are taken within a round, so that they hold on a machine whose speed drifts. Memory is what is needed on
top of the weights, and for later choices on top of the masks in force.

    python scripts/benchmark_selection.py --weights 100_000_000 --sparsity 0.9 --rounds 5
"""

import argparse
import ctypes
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lightning_prune.choosing import choose, score
from lightning_prune.criteria.magnitude import Magnitude
from lightning_prune.granularities.element import Element
from lightning_prune.held_masks import HeldMasks
from lightning_prune.pools import weight_pools


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Return how long it takes."""
    start = now(device)
    run()
    return now(device) - start


def now(device: torch.device) -> float:
    """Return the time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def resident(field: str) -> int:
    """Return the bytes of memory that Linux gives this process, now (`VmRSS`) or at most so far (`VmHWM`)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def extra_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the most memory that it takes at a time, results included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be had for nothing
    Path("/proc/self/clear_refs").write_text("5")  # sets the maximum back
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=100_000_000, help="of all tensors together")
    parser.add_argument("--tensors", type=int, default=16)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sort", action="store_true", help="time torch.sort too, which takes long")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    device = options.device
    torch.manual_seed(0)
    columns = options.weights // options.tensors // 1000
    layers = [nn.Linear(columns, 1000, bias=False, device=device) for _ in range(options.tensors)]
    network = nn.Sequential(*layers)
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    pools = weight_pools(network, Element())[0]
    row = torch.cat([weight.reshape(-1) for weight in weights.values()]).abs_()
    number = round(options.sparsity * len(row))

    def masks(sparsity: float, held: HeldMasks | None = None) -> HeldMasks:
        shares, factors = [sparsity] * len(pools), None if held is None else held.factors
        chosen = choose(pools, score(pools, Magnitude(), weights), shares, "global", 0.01, factors)
        if held is None:
            return HeldMasks(network, chosen)
        held.replace(chosen)
        return held

    first, later = masks(options.sparsity), masks(options.sparsity / 2)
    threshold = row.kthvalue(number).values
    found = first.masks
    assert sum(int(one.count_nonzero()) for one in found.values()) == len(row) - number
    assert all(bool((weights[name][~one].abs() <= threshold).all()) for name, one in found.items())
    half = later.masks
    del first, found

    def again() -> None:
        later.replace(half)

    runs: dict[str, Callable[[], object]] = {
        "first choice": lambda: masks(options.sparsity),
        "later choice": lambda: masks(options.sparsity, later),
        "torch.kthvalue": lambda: row.kthvalue(number),
    }
    if options.sort:
        runs["torch.sort"] = row.sort
    times = []
    for _ in range(options.rounds):
        times.append({name: seconds(run, device) for name, run in runs.items()})
        again()
    size = len(row) * row.element_size()
    print(f"{len(row):,} weights in {options.tensors} tensors, {options.sparsity:.1%} chosen, on {device}")
    print(f"{'':>14}  {'seconds':>8}  {'extra memory / weights':>22}")
    for name, run in runs.items():
        taken = statistics.median(one[name] for one in times)
        print(f"{name:>14}  {taken:8.4f}  {extra_bytes(run, device) / size:22.2f}")
    for name in ("first choice", "later choice"):
        for other in list(runs)[2:]:
            ratios = sorted(one[name] / one[other] for one in times)
            print(f"{name} / {other}: {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
