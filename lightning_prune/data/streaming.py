"""Images that are read from disk when a batch needs them, decoded and transformed by worker processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_prune.data.batches import Batch, Draw
from lightning_prune.data.seeded import seeded
from lightning_prune.errors import InputError

Transform = Callable[[Image.Image], Tensor]
"""From an RGB image to `(channels, height, width)`: uint8 pixels, or floats as a network gets them."""

_AS_IT_IS = -1  # in place of the seed of a view


class StoredImages(Protocol):
    """Labelled images somewhere on disk."""

    @property
    def labels(self) -> Tensor:
        """Return the labels of all images, `(n,)`, int64."""

    def name(self, sample: int) -> str:
        """Return what an image is called in messages."""

    def load(self, sample: int) -> Image.Image:
        """Decode an image to RGB; an InputError if it is damaged."""


@dataclass(frozen=True)
class Part:
    """Hold some of the images of a set.

    Args:
        images: The set.
        indices: `(n,)`, int64, which of them.
    """

    images: StoredImages
    indices: Tensor

    @property
    def labels(self) -> Tensor:
        """Return the labels of the part, `(n,)`, int64."""
        return self.images.labels[self.indices]

    def name(self, sample: int) -> str:
        """Return what an image of the part is called in messages."""
        return self.images.name(int(self.indices[sample]))

    def load(self, sample: int) -> Image.Image:
        """Decode an image of the part to RGB."""
        return self.images.load(int(self.indices[sample]))


class _Transformed(Dataset[Tensor | InputError]):
    def __init__(self, images: StoredImages, random: Transform, plain: Transform) -> None:
        self._images, self._random, self._plain = images, random, plain

    def __getitem__(self, draw: tuple[int, int]) -> Tensor | InputError:
        # What a person got wrong is handed over: an exception comes out of a worker with its stack trace as its text.
        sample, view = draw
        try:
            image = self._images.load(sample)
        except InputError as error:
            return error
        key, transform = ("eval", self._plain) if view == _AS_IT_IS else ("train", self._random)
        with seeded(sample if view == _AS_IT_IS else view):
            pixels: Any = transform(image)
        if (
            isinstance(pixels, Tensor)
            and pixels.ndim == 3
            and (pixels.dtype == torch.uint8 or pixels.is_floating_point())
        ):
            return pixels
        came = f"{pixels.dtype} {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else f"a {type(pixels).__name__}"
        return InputError(
            f"data.{key}_transform: expected it to give a tensor (channels, height, width), uint8 or float, got {came}"
        )


class _Order:
    """The batches to come, as `DataLoader` asks for them."""

    def __init__(self) -> None:
        self.draws: Iterable[Draw] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return map(_by_sample, self.draws)


def _noted(draws: Iterable[Draw], asked: deque[Draw]) -> Iterator[Draw]:
    for draw in draws:
        asked.append(draw)
        yield draw


def _by_sample(draw: Draw) -> list[tuple[int, int]]:
    samples, views = draw
    seeds = [_AS_IT_IS] * len(samples) if views is None else views.tolist()
    return list(zip(samples.tolist(), seeds, strict=True))


def _join(images: list[Tensor | InputError]) -> Tensor | InputError:
    """Return one tensor, or what is wrong with the first image that cannot be in it."""
    tensors: list[Tensor] = []
    for image in images:
        if isinstance(image, InputError):
            return image
        tensors.append(image)
    kinds = list(dict.fromkeys((tuple(image.shape), image.dtype) for image in tensors))
    if len(kinds) > 1:
        return InputError(
            f"data: expected transforms that give images of one shape and type, got {kinds[0][0]} {kinds[0][1]} and "
            f"{kinds[1][0]} {kinds[1][1]}; let them crop or resize to one height and width"
        )
    return torch.stack(tensors)


class Stream:
    """Serve batches of images on disk, which only takes the memory of the batches that are under way.

    Args:
        images: The images.
        random: The transform of the images in their views; its random numbers come from the global generators of torch,
            Python and NumPy, which are seeded for each image by its view.
        plain: The transform of the images as they are.
        num_workers: Processes that load images.
        prefetch: Batches that each of them has ready.
        pin_memory: Whether batches are put where a GPU copies them from faster.
    """

    def __init__(
        self,
        images: StoredImages,
        random: Transform,
        plain: Transform,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        self.images, self.labels = images, images.labels
        self._dataset = _Transformed(images, random, plain)
        self._num_workers, self._prefetch, self._pin_memory = num_workers, prefetch, pin_memory
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None

    def take(self, draw: Draw) -> Batch:
        """Return one batch of `(n, channels, height, width)` images, loaded in this process.

        Raises:
            InputError: If an image is damaged, or a transform gives no image.
        """
        return self._batch(_join([self._dataset[one] for one in _by_sample(draw)]), draw)

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Yield one batch after the other, of `(n, channels, height, width)` images, loaded by the workers.

        Raises:
            InputError: If an image is damaged, or a transform gives no image.
        """
        if self._loader is None:
            self._loader = self._start()
        asked: deque[Draw] = deque()
        self._order.draws = _noted(draws, asked)
        try:
            for pixels in self._loader:
                yield self._batch(pixels, asked.popleft())
        except InputError:
            # Now, since whoever keeps the exception keeps this frame: workers that are left to the garbage collector
            # are waited for.
            self.close()
            raise

    def close(self) -> None:
        """End the workers; the next `serve` starts new ones."""
        self._loader = None

    def _batch(self, pixels: Tensor | InputError, draw: Draw) -> Batch:
        if isinstance(pixels, InputError):
            # A new one, since the stack of this one would hold this frame, and so itself: a cycle.
            raise InputError(str(pixels))
        return Batch(pixels, self.labels[draw[0]], draw[0], views=None)

    def _start(self) -> DataLoader[Any]:
        return DataLoader(
            self._dataset,
            batch_sampler=self._order,
            num_workers=self._num_workers,
            collate_fn=_join,
            pin_memory=self._pin_memory,
            prefetch_factor=self._prefetch if self._num_workers else None,
            persistent_workers=self._num_workers > 0,
            generator=torch.Generator(),  # else each epoch would move the global one
        )
