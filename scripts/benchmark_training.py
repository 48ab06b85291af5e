"""Time training epochs with soft filter pruning against Lightning alone and against a bare PyTorch loop.

The three train the same network on the same batches, in turn, round after round; ratios are taken within a round, so
that they hold on a machine whose speed drifts. Two epochs a run: after the first, filters are reset; in the second they
are held. Tracing the model, once a fit, is timed on its own.

    python scripts/benchmark_training.py --model resnet20 --batches 20 --rounds 7
"""

import argparse
import logging
import statistics
import time
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional as F

from lightning_prune import SoftFilterPruning
from lightning_prune.coupling import couple
from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.models import resnet
from lightning_prune.models.classifier import ImageClassifier

EPOCHS = 2


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


def now() -> float:
    """Return the time, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def lightning(network: nn.Module, data: InMemoryImages, *callbacks: Callback) -> float:
    """Return the seconds that Lightning takes for the epochs."""
    module = ImageClassifier(network, 10)
    module.example_input_array = data.example_input(2)
    clock = Clock()
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=[*callbacks, clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    return clock.seconds


def bare(network: nn.Module, data: InMemoryImages) -> float:
    """Return the seconds that a plain loop takes for the same epochs."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).train()
    optimizer = ImageClassifier(network, 10).optimizer(network.parameters())
    data.trainer = None
    loader = data.train_dataloader()
    start = now()
    for _ in range(EPOCHS):
        for batch in loader:
            moved = type(batch)(*(part.to(device) for part in batch))  # type: ignore[union-attr]
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
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    count = 128 * options.batches
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(count) % 10)
    data = InMemoryImages(
        train=images,
        val=images,
        test=images,
        num_classes=10,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        padding=4,
        flip=True,
        batch_size=128,
        seed=0,
    )
    build = getattr(resnet, options.model)
    start = now()
    couple(build(), data.example_input(2)).groups()
    print(f"tracing {options.model} and grouping its channels, once a fit: {now() - start:.2f} s")

    times: dict[str, list[float]] = {"bare loop": [], "lightning": [], "with pruning": []}
    for _ in range(options.rounds):
        times["bare loop"].append(bare(build(), data))
        times["lightning"].append(lightning(build(), data))
        times["with pruning"].append(lightning(build(), data, SoftFilterPruning(0.4, hard_from=0.5)))
    for name, seconds in times.items():
        print(f"{name:>13}: {statistics.median(seconds) / EPOCHS:.3f} s an epoch (median of {options.rounds})")
    for name, other in (("with pruning", "lightning"), ("with pruning", "bare loop"), ("lightning", "bare loop")):
        ratios = sorted(a / b for a, b in zip(times[name], times[other], strict=True))
        print(f"{name} / {other}: {statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})")


if __name__ == "__main__":
    main()
