"""From an image of any size to pixels of one size: what images on disk are shown through unless one's own is given.

They draw from torch's global generator, as the transforms of torchvision do.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling, Transpose
from torch import Tensor


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a rectangle of random size, shape and place, resize it to a square, and mirror it or not.

    Args:
        size: Height and width of the result, pixels.
        scale: Lowest and highest share of the image's area.
        ratio: Lowest and highest width over height.
        flip: Probability of mirroring it left to right.

    Reference:
        Szegedy et al., "Going Deeper with Convolutions", 2015, arXiv 1409.4842, section 6.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __call__(self, image: Image.Image) -> Tensor:
        """Return `(3, size, size)`, uint8, of an RGB image."""
        box = self._draw_box(image.width, image.height)
        cut = image.resize((self.size, self.size), Resampling.BILINEAR, box)
        if _uniform(0, 1) < self.flip:
            cut = cut.transpose(Transpose.FLIP_LEFT_RIGHT)
        return to_pixels(cut)

    def _draw_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * _uniform(*self.scale)
            ratio = math.exp(_uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = (int(torch.randint(space + 1, ())) for space in (width - w, height - h))
                return left, top, left + w, top + h
        # None fits a long and narrow image: its largest central part of an allowed shape.
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


@dataclass(frozen=True)
class CentreCrop:
    """Resize the shorter side, and cut out the central square.

    Args:
        size: Height and width of the result, pixels.
        fraction: The side of the square over the shorter side of the image.
    """

    size: int
    fraction: float = 0.875

    def __call__(self, image: Image.Image) -> Tensor:
        """Return `(3, size, size)`, uint8, of an RGB image."""
        side = min(image.size) * self.fraction
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        # Cut and resized in one step, which never enlarges a long image before most of it is dropped.
        return to_pixels(image.resize((self.size, self.size), Resampling.BILINEAR, box))


def to_pixels(image: Image.Image) -> Tensor:
    """Return the pixels of an RGB image, `(3, height, width)`, uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
