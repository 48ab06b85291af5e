"""Labelled images as two tensors: checks, a stratified split and channel statistics."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prune.data.batches import Batch, Draw
from lightning_prune.errors import InputError


class Images(NamedTuple):
    """Hold labelled images.

    Attributes:
        pixels: `(n, channels, size, size)`, uint8.
        labels: `(n,)`, int64 class indices.
    """

    pixels: Tensor
    labels: Tensor

    def at(self, indices: Tensor) -> "Images":
        """Return the images at `indices`, `(m,)` int64 or `(n,)` bool."""
        return Images(self.pixels[indices], self.labels[indices])

    def take(self, draw: Draw) -> Batch:
        """Return one batch, `(n, channels, size, size)` uint8; views are cut out of it later, on the device."""
        samples, views = draw
        return Batch(*self.at(samples), samples, views)

    def serve(self, draws: Iterable[Draw]) -> Iterator[Batch]:
        """Yield one batch after the other, `(n, channels, size, size)` uint8."""
        return map(self.take, draws)


def check_images(name: str, images: Images, num_classes: int) -> None:
    """Refuse tensors that are no square uint8 images with labels below `num_classes`.

    Args:
        name: What the images are called in the message, such as `train`.
        images: The images to check.
        num_classes: Number of classes.

    Raises:
        InputError: If a shape, a dtype or a label is wrong, or if there are no images.
    """
    pixels, labels = images
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3] or not pixels.numel():
        came = f"{pixels.dtype} {tuple(pixels.shape)}"
        raise InputError(f"{name}.pixels: expected uint8 images of shape (n > 0, channels, size, size), got {came}")
    if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
        came = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"{name}.labels: expected int64 labels of shape ({len(pixels)},), got {came}")
    if labels.min() < 0 or labels.max() >= num_classes:
        came = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(f"{name}.labels: expected labels in 0..{num_classes - 1}, got {came}")


def hold_out(images: Images, count: int, seed: int) -> tuple[Images, Images]:
    """Split off exactly `count` images, every class by its share.

    Each class gives its proportional number, rounded down or up; which of its images, `seed` decides.

    Args:
        images: The images to split.
        count: Number of images to hold out.
        seed: Seed of the choice.

    Returns:
        The images that stay and the `count` held out, each in their original order.

    Raises:
        InputError: If `count` leaves nothing on one side.
    """
    held = choose_held_out(images.labels, count, seed)
    return images.at(~held), images.at(held)


def choose_held_out(labels: Tensor, count: int, seed: int) -> Tensor:
    """Choose exactly `count` of some labelled images, every class by its share.

    Args:
        labels: `(n,)`, int64.
        count: Number of images to hold out.
        seed: Seed of the choice.

    Returns:
        `(n,)`, bool, True for those held out.

    Raises:
        InputError: If `count` leaves nothing on one side.
    """
    total = len(labels)
    if not 0 < count < total:
        raise InputError(f"data.validation: expected 1 to {total - 1} of the {total} images held out, got {count}")
    shuffled = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    held = torch.zeros(total, dtype=torch.bool)
    # Evenly spaced picks from a list sorted by class: no class is more than one image off its exact share.
    held[by_class[(2 * torch.arange(count) + 1) * total // (2 * count)]] = True
    return held


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Measure mean and standard deviation of each channel exactly, from its histogram.

    Args:
        pixels: `(n, channels, h, w)`, uint8.

    Returns:
        Mean and population standard deviation, one a channel, as fractions of 255.
    """
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in pixels.unbind(1)]).double()
    share, value = counts / counts.sum(1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = (share * value).sum(1, keepdim=True)
    std = (share * (value - mean).square()).sum(1).sqrt()
    return tuple(mean.flatten().tolist()), tuple(std.tolist())
