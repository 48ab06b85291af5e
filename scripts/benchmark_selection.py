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
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from benchmarking import interleaved, parse_options, ratio, seconds
from torch import Tensor, nn

from lightning_prune.pruning import Goal, HeldMasks
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.granularities.element import Element


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


class Pruned:
    """A network whose weights are to be chosen from, as a pruner does, and the same weights ready for torch.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.sparsity: float = options.sparsity
        columns = options.weights // options.tensors // 1000
        layers = [nn.Linear(columns, 1000, bias=False, device=options.device) for _ in range(options.tensors)]
        self.network = nn.Sequential(*layers)
        self.weights = {name: weight.detach() for name, weight in self.network.named_parameters()}
        self.row = torch.cat([weight.reshape(-1) for weight in self.weights.values()]).abs_()
        self.number = round(self.sparsity * len(self.row))
        first, self.held = self.first_choice(self.sparsity), self.first_choice(self.sparsity / 2)
        self.half = self.held.masks
        self.check(first.masks)

    def choose(self, sparsity: float, held: HeldMasks | None = None) -> dict[str, Tensor]:
        """Return masks that remove the smallest weights, those first that masks in force remove."""
        competition = Goal(Element(), sparsity, "global", 0.01).find(self.network)
        assert competition is not None
        return competition.choose(Magnitude(), self.weights, None if held is None else held.factors)

    def first_choice(self, sparsity: float) -> HeldMasks:
        """Return the masks of a first choice, held."""
        chosen = self.choose(sparsity)  # a pruner has them until they are held
        return HeldMasks(self.network, chosen)

    def later_choice(self) -> None:
        """Go on from the masks in force."""
        self.held.replace(self.choose(self.sparsity, self.held))

    def go_back(self) -> None:
        """Put the masks of half the sparsity in force again."""
        self.held.replace(self.half)

    def check(self, masks: dict[str, Tensor]) -> None:
        """Hold a choice against torch.kthvalue."""
        threshold = self.row.kthvalue(self.number).values
        assert sum(int(mask.count_nonzero()) for mask in masks.values()) == len(self.row) - self.number
        assert all(bool((self.weights[name][~mask].abs() <= threshold).all()) for name, mask in masks.items())


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=100_000_000, help="of all tensors together")
    parser.add_argument("--tensors", type=int, default=16)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--sort", action="store_true", help="time torch.sort too, which takes long")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    return parse_options(parser)


def main() -> None:
    """Run the rounds and print the medians."""
    options = parsed()
    torch.manual_seed(0)
    pruned, device = Pruned(options), options.device
    row, number = pruned.row, pruned.number
    runs: dict[str, Callable[[], object]] = {
        "first choice": lambda: pruned.first_choice(options.sparsity),
        "later choice": pruned.later_choice,
        "torch.kthvalue": lambda: row.kthvalue(number),
    }
    if options.sort:
        runs["torch.sort"] = row.sort

    def timed(run: Callable[[], object]) -> float:
        taken = seconds(run, device)
        pruned.go_back()
        return taken

    times = interleaved({name: partial(timed, run) for name, run in runs.items()}, options.rounds)
    memory = {name: extra_bytes(run, device) / (len(row) * row.element_size()) for name, run in runs.items()}
    print(f"{len(row):,} weights in {options.tensors} tensors, {options.sparsity:.1%} chosen, on {device}")
    report(times, memory)


def report(times: dict[str, list[float]], memory: dict[str, float]) -> None:
    """Print medians and ratios.

    Args:
        times: Seconds in each round, by run.
        memory: Memory in that of the weights, by run.
    """
    print(f"{'':>14}  {'seconds':>8}  {'extra memory / weights':>22}")
    for name, extra in memory.items():
        print(f"{name:>14}  {statistics.median(times[name]):8.4f}  {extra:22.2f}")
    for name in ("first choice", "later choice"):
        for other in list(memory)[2:]:
            print(f"{name} / {other}: {ratio(times[name], times[other])}")


if __name__ == "__main__":
    main()
