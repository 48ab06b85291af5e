"""What the benchmarks share: their command line, data and training, the time, and rounds of interleaved runs.

The runs to compare take turns, round after round, in one order and then the other, and ratios are taken within a round:
they hold on a machine whose speed drifts, as plain times do not.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_prune.data import ImageData, Images, InMemoryImages
from lightning_prune.models import ImageClassifier

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where Lightning trains."""

EPOCHS = 2
"""That a run trains: one to get warm in, one to measure."""


def parse_options(parser: argparse.ArgumentParser, *, rounds: int = 5) -> argparse.Namespace:
    """Read the command line, with the options that all benchmarks have, set the threads and silence Lightning.

    Args:
        parser: Has the options of one benchmark.
        rounds: Default of `--rounds`.
    """
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    return options


# Rounds ---------------------------------------------------------------------------------------------------------------


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return what each run measures in each round, the runs in turn, every second round the other way round."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for _ in range(rounds):
        order.reverse()
        for name in order:
            measured[name].append(runs[name]())
    return measured


def print_medians(times: Mapping[str, Sequence[float]], per: str) -> None:
    """Print the median time of each run.

    Args:
        times: Seconds in each round, by run.
        per: What takes them, as in "a step".
    """
    width = max(map(len, times))
    for name, taken in times.items():
        milliseconds = 1000 * statistics.median(taken)
        print(f"{name:>{width}}: {milliseconds:.1f} ms {per} (median of {len(taken)} runs)")


def ratio(measured: Sequence[float], reference: Sequence[float]) -> str:
    """Return the median ratio of two runs within a round, and the least and the greatest, to print."""
    ratios = sorted(one / other for one, other in zip(measured, reference, strict=True))
    return f"{statistics.median(ratios):.3f} (from {ratios[0]:.3f} to {ratios[-1]:.3f})"


# Time -----------------------------------------------------------------------------------------------------------------


def now(device: torch.device = DEVICE) -> float:
    """Return the time in seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(run: Callable[[], object], device: torch.device = DEVICE) -> float:
    """Return how long a run on the device takes."""
    start = now(device)
    run()
    return now(device) - start


class StepClock(Callback):
    """Measure the steps of the second epoch, when all is warm, each from its start to the next one's."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Note the time."""
        if trainer.current_epoch == 1:
            self.starts.append(now())

    def median(self) -> float:
        """Return the seconds of a step."""
        return statistics.median(end - start for start, end in zip(self.starts, self.starts[1:], strict=False))


# Training -------------------------------------------------------------------------------------------------------------


def random_images(batches: int, batch_size: int, views: int | None = None) -> InMemoryImages:
    """Return random images of the size of CIFAR-10's, so many batches an epoch, each shown in `views` views."""
    count = batches * batch_size
    generator = torch.Generator().manual_seed(0)
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
        views=views,
    )


def classifier(network: nn.Module, data: ImageData) -> ImageClassifier:
    """Return the module that trains a network on images, with an example of them."""
    module = ImageClassifier(network, data.num_classes)
    module.example_input_array = data.example_input(2)
    return module


def train(module: LightningModule, data: LightningDataModule | DataLoader[Any], *callbacks: Callback) -> None:
    """Train for `EPOCHS` with nothing but the callbacks: no logs, no checkpoints, no validation."""
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, data)


def step_seconds(module: LightningModule, data: LightningDataModule | DataLoader[Any], *callbacks: Callback) -> float:
    """Return the seconds of a training step with the callbacks, the median of the second epoch's."""
    clock = StepClock()
    train(module, data, *callbacks, clock)
    return clock.median()
