"""Scikit-learn's handwritten digits: 1797 gray images of 8 x 8 pixels that come with the library."""

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from lightning_prune.data.data_checks import check_integer, check_serving
from lightning_prune.data.images import Images, channel_statistics, hold_out
from lightning_prune.data.in_memory import InMemoryImages

_OWN_SIZE = 8


def digits(batch_size: int = 64, seed: int = 0, views: int | None = None, size: int = _OWN_SIZE) -> InMemoryImages:
    """Load the digits: 1257 images to train on, 180 to validate and 360 to test, every class by its share.

    The stored values 0..16 become 0, 15, .., 240. The test images and the normalisation (measured on all others) are
    the same for every seed. Training crops come from a border of an eighth of the size; digits are not mirrored.

    Args:
        batch_size: Images in a batch of one process.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn, 1 to `(2 * (size // 8) + 1)**2`; None for a
            random one every epoch.
        size: Height and width, pixels, 8 to 64: larger images are interpolated, bilinearly. 28 is MNIST's.

    Returns:
        The data module: 10 classes, 1 channel, size `size`.

    Raises:
        InputError: If a number is out of range.

    Reference:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    check_serving(batch_size, seed)
    check_integer("data.size", size, _OWN_SIZE, 8 * _OWN_SIZE)
    source = load_digits()
    pixels = torch.from_numpy(source.images * 15).unsqueeze(1)
    if size != _OWN_SIZE:
        pixels = F.interpolate(pixels, (size, size), mode="bilinear").round()
    pixels = pixels.to(torch.uint8)
    rest, test = hold_out(Images(pixels, torch.from_numpy(source.target)), count=360, seed=0)
    mean, std = channel_statistics(rest.pixels)
    train, val = hold_out(rest, count=180, seed=seed)
    return InMemoryImages(
        train=train,
        val=val,
        test=test,
        num_classes=10,
        mean=mean,
        std=std,
        padding=size // _OWN_SIZE,
        flip=False,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )
