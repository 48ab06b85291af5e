"""Random images in memory, with labels, as a data module serves them."""

import torch

from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def random_images(count: int, channels: int = 3, size: int = 6, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 4)


def module_of(
    train: int = 23,
    val: int = 7,
    test: int = 9,
    batch_size: int = 5,
    seed: int = 0,
    views: int | None = None,
    padding: int = 2,
    flip: bool = True,
) -> InMemoryImages:
    return InMemoryImages(
        train=random_images(train),
        val=random_images(val, seed=1),
        test=random_images(test, seed=2),
        num_classes=4,
        mean=MEAN,
        std=STD,
        padding=padding,
        flip=flip,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )
