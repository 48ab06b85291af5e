"""Time training steps with a teacher: distilled, distilled from cached logits, and searched by GAL.

All of them train on the same batches, in turn, round after round; a figure is the median step of a run's second epoch,
when the cache is full, and ratios are taken within a round, so that they hold on a machine whose speed drifts. The
least that a step with a teacher can cost is a plain step and one forward pass of the teacher. GAL searches the
student's own architecture, with a baseline of the same; the update of its masks, every 200 steps in a real run, is left
out.

    python scripts/benchmark_distillation.py --batches 6 --rounds 5 --threads 1
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from benchmarking import (
    DEVICE,
    classifier,
    interleaved,
    parse_options,
    print_medians,
    random_images,
    ratio,
    seconds,
    step_seconds,
)
from lightning.pytorch import Callback
from torch import nn

from lightning_prune.callbacks import GALPruning, KnowledgeDistillation
from lightning_prune.data import InMemoryImages
from lightning_prune.models import resnet

NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


def step(network: nn.Module, data: InMemoryImages, *callbacks: Callback) -> float:
    """Return the seconds of a training step with callbacks."""
    return step_seconds(classifier(network, data), data, *callbacks)


def forward(network: nn.Module, data: InMemoryImages, batches: int) -> float:
    """Return the seconds of a forward pass in eval mode."""
    network = network.to(DEVICE).eval()
    images = data.example_input(data.batch_size).to(DEVICE)
    with torch.no_grad():
        return statistics.median(seconds(lambda: network(images)) for _ in range(batches))


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="resnet20", choices=NETWORKS)
    parser.add_argument("--teacher", default="resnet56", choices=NETWORKS)
    parser.add_argument("--batches", type=int, default=20, help="in an epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    options = parse_options(parser)
    data = random_images(options.batches, options.batch_size, views=1)
    student, teacher = getattr(resnet, options.student), getattr(resnet, options.teacher)
    runs: dict[str, Callable[[], float]] = {
        "plain": lambda: step(student(), data),
        "teacher's forward": lambda: forward(teacher(), data, options.batches),
        "baseline's forward": lambda: forward(student(), data, options.batches),
        "distilled": lambda: step(student(), data, KnowledgeDistillation(teacher(), cache=False)),
        "distilled, cached": lambda: step(student(), data, KnowledgeDistillation(teacher(), cache=True)),
        "GAL": lambda: step(student(), data, GALPruning(student(), sparsity=None, every=options.batches)),
    }
    times = interleaved(runs, options.rounds)
    print_medians(times, "a step")
    for name, parts in {
        "distilled": ("plain", "teacher's forward"),
        "distilled, cached": ("plain",),
        "GAL": ("plain", "baseline's forward"),
    }.items():
        least = [sum(together) for together in zip(*(times[part] for part in parts), strict=True)]
        print(f"{name} / ({' + '.join(parts)}): {ratio(times[name], least)}")


if __name__ == "__main__":
    main()
