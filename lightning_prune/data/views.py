"""Random crop and flip as a numbered list of views.

View `v` of an image is `flip * side**2 + row * side + column` with `side = 2 * padding + 1`: the window of the image's
own size that starts at (`row`, `column`) of the zero-padded image, mirrored left to right if `flip` is 1.
"""

import torch
from torch import Tensor
from torch.nn import functional


def count_views(padding: int, flip: bool) -> int:
    """Count the different views of one image.

    Args:
        padding: Width of the zero border, pixels.
        flip: Whether mirrored views exist.

    Returns:
        The number of views; 1 means that only the image itself is left.

    >>> count_views(padding=4, flip=True)
    162
    """
    return (2 * padding + 1) ** 2 * (1 + flip)


def apply_views(pixels: Tensor, views: Tensor, padding: int) -> Tensor:
    """Cut one view out of each image of a batch.

    Args:
        pixels: `(n, channels, h, w)`, uint8; the border is zero in these units.
        views: `(n,)`, int64, below `count_views(padding, flip)`, on the device of `pixels`.
        padding: Width of the zero border, pixels.

    Returns:
        The views, `(n, channels, h, w)`.
    """
    count, channels, height, width = pixels.shape
    side = 2 * padding + 1
    padded = functional.pad(pixels, (padding, padding, padding, padding))
    flip, row, column = views // side**2, views // side % side, views % side
    rows = row[:, None] + torch.arange(height, device=pixels.device)
    columns = torch.arange(width, device=pixels.device)
    columns = column[:, None] + torch.where(flip[:, None] == 1, width - 1 - columns, columns)
    # One gather over flattened images: 8 times as fast on a CPU as indexing with four broadcast index tensors.
    source = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    source = source.view(count, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, source).view_as(pixels)
