"""Images in one folder a class."""

from os import PathLike
from pathlib import Path

import torch
from PIL import ImageOps
from PIL.Image import Resampling

from lightning_prune.data.data_checks import check_folder, check_integer, check_serving, check_views
from lightning_prune.data.decoding import decode, stack
from lightning_prune.data.images import Images, channel_statistics, hold_out
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def image_folder(
    path: str | PathLike[str],
    image_size: int = 64,
    validation: float = 0.1,
    batch_size: int = 128,
    seed: int = 0,
    views: int | None = None,
) -> InMemoryImages:
    """Load `path/train/<class>/*` and `path/test/<class>/*`: png, jpg, jpeg and bmp files, as RGB.

    Every image is resized (bilinear) until its shorter side is `image_size`, and cut to the central square. Training
    images are cropped from a border of an eighth of their size and mirrored. The normalisation is measured on the
    images under `train`. All images are held in memory, `3 * image_size**2` bytes each.

    Args:
        path: The folder. Classes are numbered by name.
        image_size: Height and width to resize to, pixels.
        validation: Fraction of the images under `train` held out; not used where `path/val/<class>/*` exists.
        batch_size: Images in a batch of one process.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn, 1 to the number of crops and flips; None for a
            random one every epoch.

    Returns:
        The data module: as many classes as folders, 3 channels.

    Raises:
        InputError: If a folder is missing or empty, the classes differ, an image is damaged or a number out of range.
    """
    check_serving(batch_size, seed)
    check_integer("data.image_size", image_size, 1, 2**14)
    if not isinstance(validation, float) or not 0 < validation < 1:
        raise InputError(f"data.validation: expected a fraction in (0, 1), got {validation!r}")
    check_views(views, padding=image_size // 8, flip=True)
    root = check_folder(path, "train/<class>/ and test/<class>/")
    classes = _list_classes(root / "train")
    train = _read(root / "train", classes, image_size)
    test = _read(root / "test", classes, image_size)
    mean, std = channel_statistics(train.pixels)
    if (root / "val").is_dir():
        val = _read(root / "val", classes, image_size)
    else:
        train, val = hold_out(train, round(validation * len(train.labels)), seed)
    return InMemoryImages(
        train=train,
        val=val,
        test=test,
        num_classes=len(classes),
        mean=mean,
        std=std,
        padding=image_size // 8,
        flip=True,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )


def _list_classes(folder: Path) -> list[str]:
    check_folder(folder, "one folder a class")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise InputError(f"data.path: expected one folder a class in {folder}, got none")
    return classes


def _read(folder: Path, classes: list[str], image_size: int) -> Images:
    found = _list_classes(folder)
    if found != classes:
        odd = min({*found} ^ {*classes})
        raise InputError(f"data.path: expected the same classes in {folder} as in train, got {odd} in one of them only")
    files = [(file, label) for label, name in enumerate(classes) for file in _list_images(folder / name)]
    size = (image_size, image_size)
    pixels = stack((str(file), ImageOps.fit(decode(file, str(file)), size, Resampling.BILINEAR)) for file, _ in files)
    return Images(pixels, torch.tensor([label for _, label in files]))


def _list_images(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise InputError(f"data.path: expected images ({', '.join(_SUFFIXES)}) in {folder}, got none")
    return files
