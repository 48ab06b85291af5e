"""Encoded images to one uint8 tensor."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lightning_prune.errors import InputError


def decode(source: Path | BytesIO, where: str) -> Image.Image:
    """Decode one image of any mode to RGB; values of 16 bits become 8.

    Args:
        source: An image file, or its bytes in memory.
        where: What the image is called in the message.

    Raises:
        InputError: If Pillow cannot decode it.
    """
    try:
        with Image.open(source) as image:
            # Pillow knows no way from 16 bits to RGB, and clips what it takes for 32.
            if image.mode.startswith("I"):
                return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
            return image.convert("RGB")
    except Exception as error:  # damaged data makes Pillow's decoders raise a dozen unrelated types
        raise InputError(f"data.path: expected an image that Pillow can decode, got damaged data in {where}") from error


def stack(images: Iterable[tuple[str, Image.Image]]) -> Tensor:
    """Put RGB images of one size into one tensor.

    Args:
        images: For each image what it is called in the message, and the image.

    Returns:
        `(n, 3, h, w)`, uint8; n is at least 1.

    Raises:
        InputError: If two sizes differ.
    """
    raw, first, size = bytearray(), "", (0, 0)
    for where, image in images:
        if not raw:
            first, size = where, image.size
        if image.size != size:
            one, other = (f"{width}x{height}" for width, height in (size, image.size))
            raise InputError(f"data.path: expected images of one size, got {one} in {first} and {other} in {where}")
        raw += image.tobytes()
    width, height = size
    return torch.frombuffer(raw, dtype=torch.uint8).view(-1, height, width, 3).permute(0, 3, 1, 2).contiguous()
