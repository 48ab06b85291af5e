"""Time training epochs with soft filter pruning against Lightning alone and against a bare PyTorch loop.

The three train the same network on the same batches, in turn, round after round; ratios are taken within a round, so
that they hold on a machine whose speed drifts. Two epochs a run: after the first, filters are reset; in the second they
are held. Tracing the model, once a fit, is timed on its own.

    python scripts/benchmark_training.py --model resnet20 --batches 20 --rounds 7
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from benchmarking import (
    DEVICE,
    EPOCHS,
    classifier,
    interleaved,
    now,
    parse_options,
    random_images,
    ratio,
    seconds,
    train,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional as F

from lightning_prune import SoftFilterPruning
from lightning_prune.data import InMemoryImages
from lightning_prune.models import ImageClassifier, resnet
from lightning_prune.slimming import couple


class Clock(Callback):
    """Measure the time from the first batch's start to the last batch's end."""

    start = 0.0
    seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.start = now()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = now() - self.start


def lightning(network: nn.Module, data: InMemoryImages, *callbacks: Callback) -> float:
    """Return the seconds that Lightning takes for the epochs."""
    clock = Clock()
    train(classifier(network, data), data, *callbacks, clock)
    return clock.seconds


def bare(network: nn.Module, data: InMemoryImages) -> float:
    """Return the seconds that a plain loop takes for the same epochs."""
    network = network.to(DEVICE).train()
    optimizer = ImageClassifier(network, 10).optimizer(network.parameters())
    data.trainer = None
    loader = data.train_dataloader()
    start = now()
    for _ in range(EPOCHS):
        for batch in loader:
            moved = type(batch)(*(part.to(DEVICE) for part in batch))  # type: ignore[union-attr]
            images, labels = data.on_after_batch_transfer(moved, 0)
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(images), labels))
            optimizer.step()
    return now() - start


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20", choices=["resnet20", "resnet32", "resnet56", "resnet110"])
    parser.add_argument("--batches", type=int, default=20, help="batches of 128 images an epoch")
    options = parse_options(parser, rounds=7)
    data, build = random_images(options.batches, 128), getattr(resnet, options.model)
    tracing = seconds(lambda: couple(build(), data.example_input(2)).groups())
    print(f"tracing {options.model} and grouping its channels, once a fit: {tracing:.2f} s")

    runs: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bare(build(), data),
        "lightning": lambda: lightning(build(), data),
        "with pruning": lambda: lightning(build(), data, SoftFilterPruning(0.4, hard_from=0.5)),
    }
    times = interleaved(runs, options.rounds)
    for name, taken in times.items():
        print(f"{name:>13}: {statistics.median(taken) / EPOCHS:.3f} s an epoch (median of {options.rounds})")
    for name, other in (("with pruning", "lightning"), ("with pruning", "bare loop"), ("lightning", "bare loop")):
        print(f"{name} / {other}: {ratio(times[name], times[other])}")


if __name__ == "__main__":
    main()
