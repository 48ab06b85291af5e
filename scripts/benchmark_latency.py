"""Measure networks that are equal as the end table measures different ones: how far apart do their latencies come out?

Each pair is the same network twice. Printed are the medians over each other, upper over lower quartiles, and how many
pairs were marked noisy. Run it beside something else that needs the CPU, and on a quiet machine.

    python scripts/benchmark_latency.py --models digits_resnet resnet20 --rounds 8 --threads 1
"""

import argparse
import copy
import statistics

import torch
from benchmarking import parse_options

from lightning_prune.models import digits_resnet, resnet
from lightning_prune.reporting import profile_all

MODELS = {"digits_resnet": (digits_resnet.digits_resnet, (1, 8, 8)), "resnet20": (resnet.resnet20, (3, 32, 32))}
"""How each network is built, and what an image for it is like."""


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parse_options(parser, rounds=8)
    for name in options.models:
        build, shape = MODELS[name]
        network, images = build(), torch.randn(options.batch_size, *shape)
        pairs = [profile_all([network, copy.deepcopy(network)], images) for _ in range(options.rounds)]
        ratios = sorted(one.latency_ms / other.latency_ms for one, other in pairs)
        spreads = [profile.latency_high_ms / profile.latency_low_ms for pair in pairs for profile in pair]
        noisy = sum(one.noisy or other.noisy for one, other in pairs)
        print(
            f"{name:16} one over the other {ratios[0]:.2f} to {ratios[-1]:.2f}; quartiles {min(spreads):.2f} to "
            f"{max(spreads):.2f}, median {statistics.median(spreads):.2f}; noisy {noisy} of {len(pairs)} pairs"
        )


if __name__ == "__main__":
    main()
