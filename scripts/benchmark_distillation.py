"""Time training steps with a teacher: distilled, distilled from cached logits, and searched by GAL.

All of them train on the same batches, in turn, round after round; a figure is the median step of a run's second epoch,
when the cache is full, and ratios are taken within a round, so that they hold on a machine whose speed drifts. The
least that a step with a teacher can cost is a plain step and one forward pass of the teacher. GAL searches the
student's own architecture, with a baseline of the same; the update of its masks, every 200 steps in a real run, is left
out.

    python scripts/benchmark_distillation.py --batches 6 --rounds 5 --threads 1
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lightning_prune.callbacks.gal_pruning import GALPruning
from lightning_prune.callbacks.knowledge_distillation import KnowledgeDistillation
from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.models import resnet
from lightning_prune.models.classifier import ImageClassifier

NETWORKS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


class Clock(Callback):
    """Measure the steps of the second epoch, each from its start to the next one's."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Note the time."""
        if trainer.current_epoch == 1:
            self.starts.append(now())

    def median(self) -> float:
        """Return the seconds of a step."""
        return statistics.median(end - start for start, end in zip(self.starts, self.starts[1:], strict=False))


def now() -> float:
    """Return the time, once the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def step(network: nn.Module, data: InMemoryImages, *callbacks: Callback) -> float:
    """Return the seconds of a training step with callbacks."""
    module = ImageClassifier(network, 10)
    module.example_input_array = data.example_input(2)
    clock = Clock()
    trainer = Trainer(
        max_epochs=2,
        callbacks=[*callbacks, clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data)
    return clock.median()


def forward(network: nn.Module, data: InMemoryImages, batches: int) -> float:
    """Return the seconds of a forward pass in eval mode."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()
    images = data.example_input(data.batch_size).to(device)
    times = []
    with torch.no_grad():
        for _ in range(batches):
            start = now()
            network(images)
            times.append(now() - start)
    return statistics.median(times)


def random_data(batches: int, batch_size: int) -> InMemoryImages:
    """Return random images, each shown in one view."""
    generator = torch.Generator().manual_seed(0)
    count = batches * batch_size
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(count) % 10)
    return InMemoryImages(
        train=images,
        val=images,
        test=images,
        num_classes=10,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        padding=4,
        flip=True,
        batch_size=batch_size,
        seed=0,
        views=1,
    )


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="resnet20", choices=NETWORKS)
    parser.add_argument("--teacher", default="resnet56", choices=NETWORKS)
    parser.add_argument("--batches", type=int, default=20, help="in an epoch")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    data = random_data(options.batches, options.batch_size)
    student, teacher = getattr(resnet, options.student), getattr(resnet, options.teacher)
    runs: dict[str, Callable[[], float]] = {
        "plain": lambda: step(student(), data),
        "teacher's forward": lambda: forward(teacher(), data, options.batches),
        "baseline's forward": lambda: forward(student(), data, options.batches),
        "distilled": lambda: step(student(), data, KnowledgeDistillation(teacher(), cache=False)),
        "distilled, cached": lambda: step(student(), data, KnowledgeDistillation(teacher(), cache=True)),
        "GAL": lambda: step(student(), data, GALPruning(student(), every=options.batches)),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.rounds):
        for name in list(runs) if turn % 2 else reversed(runs):
            times[name].append(runs[name]())
    for name, seconds in times.items():
        print(f"{name:>18}: {statistics.median(seconds) * 1000:.1f} ms a step (median of {options.rounds} runs)")
    for name, parts in {
        "distilled": ("plain", "teacher's forward"),
        "distilled, cached": ("plain",),
        "GAL": ("plain", "baseline's forward"),
    }.items():
        least = [sum(together) for together in zip(*(times[part] for part in parts), strict=True)]
        ratios = sorted(a / b for a, b in zip(times[name], least, strict=True))
        spread = f"{statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"{name} / ({' + '.join(parts)}): {spread}")


if __name__ == "__main__":
    main()
