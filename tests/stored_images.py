"""Images that stand for those on disk: as many as are asked for, each made when it is loaded."""

import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_prune.data.streamed_images import StreamedImages
from lightning_prune.data.transforms import to_pixels
from lightning_prune.errors import InputError


class MadeImages:
    """Images of 6 x 6 pixels, of four classes; one of them may be damaged."""

    def __init__(self, count: int, seed: int = 0, damaged: int | None = None) -> None:
        self.labels = torch.arange(count) % 4
        self.seed, self.damaged = seed, damaged

    def name(self, sample: int) -> str:
        return f"{self.seed}/{sample}.png"

    def load(self, sample: int) -> Image.Image:
        if sample == self.damaged:
            raise InputError(f"data.path: expected an image, got damaged data in {self.name(sample)}")
        pixels = np.random.default_rng((self.seed, sample)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return Image.fromarray(pixels)


def plain(image: Image.Image) -> Tensor:
    return to_pixels(image)


def shifted(image: Image.Image) -> Tensor:
    """Move the pixels by three random numbers, of the three global generators."""
    moves = int(torch.randint(6, ())), random.randrange(6), np.random.randint(1, 256)
    return to_pixels(image).roll(moves[:2], (1, 2)) + torch.tensor(moves[2], dtype=torch.uint8)


def stored_module(train: int = 23, val: int = 7, test: int = 9, **options: Any) -> StreamedImages:
    settings = {
        "num_classes": 4,
        "train_transform": shifted,
        "eval_transform": plain,
        "mean": (0.4, 0.5, 0.6),
        "std": (0.2, 0.25, 0.3),
        "batch_size": 5,
        "seed": 0,
        "num_workers": 0,
        **options,
    }
    return StreamedImages(train=MadeImages(train), val=MadeImages(val, 1), test=MadeImages(test, 2), **settings)
