"""Time the choice of the smallest weights among very many against torch.kthvalue and torch.sort.

All masks are computed anew from the weights, over all tensors together, their absolute values included; kthvalue and
sort get those ready and in one tensor, and make no masks. The three run in turn, round after round; ratios are taken
within a round, so that they hold on a machine whose speed drifts. Memory is what is needed on top of the weights.

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
from torch import Tensor

from lightning_prune.selection import lowest


def masks(weights: list[Tensor], number: int) -> list[Tensor]:
    """Return for each tensor which of its weights are among the `number` smallest of all."""
    return lowest([weight.abs() for weight in weights], number)


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
    generator = torch.Generator(device).manual_seed(0)
    row = torch.randn(options.weights, generator=generator, device=device)
    weights = [part.clone() for part in row.tensor_split(options.tensors)]
    row.abs_()
    number = round(options.sparsity * options.weights)
    chosen = masks(weights, number)
    threshold = row.kthvalue(number).values
    assert sum(int(one.sum()) for one in chosen) == number
    assert all(bool((weight[one].abs() <= threshold).all()) for one, weight in zip(chosen, weights, strict=True))
    del chosen

    runs: dict[str, Callable[[], object]] = {
        "all masks": lambda: masks(weights, number),
        "torch.kthvalue": lambda: row.kthvalue(number),
    }
    if options.sort:
        runs["torch.sort"] = row.sort
    times = [{name: seconds(run, device) for name, run in runs.items()} for _ in range(options.rounds)]
    size = options.weights * row.element_size()
    print(f"{options.weights:,} weights in {options.tensors} tensors, {options.sparsity:.1%} chosen, on {device}")
    print(f"{'':>14}  {'seconds':>8}  {'extra memory / weights':>22}")
    for name, run in runs.items():
        taken = statistics.median(one[name] for one in times)
        print(f"{name:>14}  {taken:8.4f}  {extra_bytes(run, device) / size:22.2f}")
    for other in list(runs)[1:]:
        ratios = sorted(one["all masks"] / one[other] for one in times)
        print(f"all masks / {other}: {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
