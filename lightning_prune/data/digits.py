"""Scikit-learn's handwritten digits: 1797 gray images of 8 x 8 pixels that come with the library."""

import torch
from sklearn.datasets import load_digits

from lightning_prune.data.checks import check_serving
from lightning_prune.data.images import Images, channel_statistics, hold_out
from lightning_prune.data.in_memory import InMemoryImages


def digits(batch_size: int = 64, seed: int = 0, views: int | None = None) -> InMemoryImages:
    """Load the digits: 1257 images to train on, 180 to validate and 360 to test, every class by its share.

    The stored values 0..16 become 0, 15, .., 240. The test images and the normalisation (measured on all others) are
    the same for every seed. Training crops come from a border of one pixel; digits are not mirrored.

    Args:
        batch_size: Images in a batch of one process.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn, 1 to 9; None for a random one every epoch.

    Returns:
        The data module: 10 classes, 1 channel, size 8.

    Raises:
        InputError: If a number is out of range.

    Reference:
        E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """
    check_serving(batch_size, seed)
    source = load_digits()
    pixels = torch.from_numpy(source.images * 15).to(torch.uint8).unsqueeze(1)
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
        padding=1,
        flip=False,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )
