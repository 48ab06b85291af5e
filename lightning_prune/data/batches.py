"""Batches of labelled images: a loader for training that can stop and resume anywhere, and one for evaluation."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lightning_prune.errors import InputError


class Batch(NamedTuple):
    """Hold one batch as it travels to the device.

    Attributes:
        pixels: `(n, channels, height, width)`, uint8, as stored; or floats, if they are already normalised.
        labels: `(n,)`, int64.
        samples: `(n,)`, int64, the place of each image in its data set.
        views: `(n,)`, int64, the view to cut out of each image; None for the images as they are.
    """

    pixels: Tensor
    labels: Tensor
    samples: Tensor
    views: Tensor | None


Draw = tuple[Tensor, Tensor | None]
"""Which images a batch is made of, `(n,)` int64, and in which view each is shown, `(n,)` int64; None for as it is."""


class Source(Protocol):
    """Labelled images of which batches can be had."""

    @property
    def labels(self) -> Tensor:
        """Return the labels of all images, `(n,)`, int64."""

    def take(self, draw: Draw) -> Batch:
        """Return one batch, made here and now, of `(n, channels, height, width)` images."""

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Yield one batch after the other, of `(n, channels, height, width)` images."""


def draw_epoch(count: int, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """Draw the order of the samples and the view of each sample for one epoch.

    The same arguments always give the same tensors; torch's global generator is neither read nor moved.

    Args:
        count: Number of samples.
        views: Number of views of a sample.
        seed: Seed of the run.
        epoch: Epochs finished before this one.

    Returns:
        Sample indices in the order of the epoch, `(count,)`, and views indexed by sample, `(count,)`; both int64.
    """
    generator = _generator(seed, epoch)
    return torch.randperm(count, generator=generator), torch.randint(views, (count,), generator=generator)


def choose_views(count: int, views: int, shown: int, seed: int) -> Tensor:
    """Choose for each sample the different views that it is shown in, and their order.

    Args:
        count: Number of samples.
        views: Number of views of a sample.
        shown: How many of them it is shown in, at most `views`.
        seed: Seed of the run.

    Returns:
        Views, `(count, shown)`, int64, no two alike in a row.
    """
    generator = _generator(seed, epoch=-1)  # before all epochs, so that none of them draws the same numbers
    chosen = torch.empty(count, shown, dtype=torch.int64)
    for part in torch.split(chosen, 4096):  # all at once would take 12 bytes for each view there is, not for each shown
        part.copy_(torch.rand(len(part), views, generator=generator).argsort(stable=True, dim=1)[:, :shown])
    return chosen


def choose_seeds(count: int, shown: int, seed: int) -> Tensor:
    """Choose for each sample the seeds of the random views that it is shown in, and their order.

    Args:
        count: Number of samples.
        shown: In how many views each is shown.
        seed: Seed of the run.

    Returns:
        Seeds, `(count, shown)`, int64, below `SEEDS`.
    """
    return torch.randint(SEEDS, (count, shown), generator=_generator(seed, epoch=-1))


SEEDS = 2**62
"""The number of views of an image whose view is the seed of a random transform."""


def _generator(seed: int, epoch: int) -> torch.Generator:
    # The generator keeps only the low 32 bits of a seed, so both numbers have to be mixed into those (Knuth's
    # multiplicative hash: no two pairs meet below a thousand seeds and a million epochs).
    return torch.Generator().manual_seed((seed * 2_654_435_761 + epoch) % 2**32)


def share(order: Tensor, rank: int, world_size: int) -> Tensor:
    """Pick every `world_size`-th sample from `rank` on, wrapping around so that all processes get as many.

    Args:
        order: Samples, `(samples,)`.
        rank: Of the process.
        world_size: Number of processes.

    Returns:
        The samples of this process, `(share,)`, a `world_size`-th of all, rounded up.

    >>> [share(torch.arange(5), rank, 2).tolist() for rank in range(2)]
    [[0, 2, 4], [1, 3, 0]]
    """
    total = math.ceil(len(order) / world_size) * world_size
    return order[torch.arange(rank, total, world_size) % len(order)]


class TrainBatches:
    """Serve shuffled batches with one view of each image, always the same for one seed and epoch.

    Implements what Lightning asks of a resumable loader: `sampler.set_epoch` and `state_dict`. The last batch of an
    epoch may be smaller. With several processes each serves its `share`.
    """

    batch_sampler = None
    """Lightning looks for this on every loader that has a `sampler`."""

    def __init__(
        self,
        source: Source,
        views: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        trained: Callable[[], int] | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        """Start at the first batch of epoch 0.

        Args:
            source: The training images.
            views: Number of views of an image, see `views.count_views` and `SEEDS`.
            batch_size: Images in a batch of one process.
            seed: Seed of the run.
            rank: Index of this process.
            world_size: Number of processes.
            trained: Counts the batches of this epoch that the model has been trained on, so that a run interrupted
                within a training step gets that batch again; None if each batch handed out counts.
            chosen: `(samples, k)`, the views that the epochs show in turn, see `choose_views`; None to draw a view of
                each image in each epoch.
        """
        self._source, self._views, self._batch_size, self._seed = source, views, batch_size, seed
        self._chosen = chosen
        self._rank, self._world_size, self._trained = rank, world_size, trained
        self._epoch = 0
        self._start = 0  # the batch that the next iterator begins with
        self._served = 0  # batches of this epoch handed out so far

    @property
    def sampler(self) -> "TrainBatches":
        """Return this loader: it takes `set_epoch` itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Turn to `epoch`, from its first batch on unless it is the epoch that was loaded or is running."""
        if epoch != self._epoch:
            self._epoch, self._start, self._served = epoch, 0, 0

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, the number of its batches that are done with, and the number that it has."""
        done = self._served if self._trained is None else min(self._served, self._trained())
        return {"epoch": self._epoch, "done": done, "batches": len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iterator go on behind the last batch done with.

        Raises:
            InputError: In mid-epoch, if the number of batches differs: the rest of the epoch would not be the rest.
        """
        if 0 < state["done"] < state["batches"] != len(self):
            raise InputError(
                f"data.batch_size: expected {state['batches']} batches an epoch as in the checkpoint, which stopped in "
                f"mid-epoch, got {len(self)}; resume with the same data, batch size and number of processes"
            )
        self._epoch, self._start, self._served = state["epoch"], state["done"], state["done"]

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return math.ceil(len(self._source.labels) / (self._world_size * self._batch_size))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch."""
        # A generator, so that all of this waits for the first batch to be asked for: Lightning calls iter() before
        # it loads the state and sets the epoch.
        start, self._start = self._start, 0
        order, views = draw_epoch(len(self._source.labels), self._views, self._seed, self._epoch)
        if self._chosen is not None:
            views = self._chosen[:, self._epoch % self._chosen.shape[1]]
        order = share(order, self._rank, self._world_size)
        parts = (order[batch * self._batch_size : (batch + 1) * self._batch_size] for batch in range(start, len(self)))
        for number, batch in enumerate(self._source.serve((part, views[part]) for part in parts), start + 1):
            self._served = number
            yield batch


class EvalBatches:
    """Serve images as they are and in order.

    With several processes each serves its `share`, so up to `world_size - 1` images are counted twice.
    """

    def __init__(self, source: Source, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        """Take the share of process `rank` of `world_size`, `batch_size` images at a time."""
        self._source, self._batch_size = source, batch_size
        self._order = share(torch.arange(len(source.labels)), rank, world_size)

    def __len__(self) -> int:
        """Count the batches."""
        return math.ceil(len(self._order) / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        return self._source.serve((samples, None) for samples in torch.split(self._order, self._batch_size))
