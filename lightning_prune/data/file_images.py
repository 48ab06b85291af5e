"""Image files in one folder a class."""

import os
from itertools import accumulate
from pathlib import Path

import torch
from PIL import Image

from lightning_prune.data.data_checks import check_folder
from lightning_prune.data.decoding import decode
from lightning_prune.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


class FileImages:
    """Hold the names of image files and their labels.

    Args:
        folder: The folder, with `<class>/**/*` in it.
        classes: Names of the classes, in the order of their numbers.

    Raises:
        InputError: If the folder has other classes, or one of them has no images.
    """

    def __init__(self, folder: Path, classes: list[str]) -> None:
        found = list_classes(folder)
        if found != classes:
            odd = min({*found} ^ {*classes})
            raise InputError(
                f"data.path: expected the same classes in {folder} as in train, got {odd} in one of them only"
            )
        files = [_list_images(folder / name) for name in classes]
        self.labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(names) for names in files]))
        names = [name for some in files for name in some]
        # One string for all names: a worker process would copy the pages of a million small ones, by counting them.
        self._names = "".join(names)
        self._ends = torch.tensor([0, *accumulate(map(len, names))])

    def name(self, sample: int) -> str:
        """Return the path of an image."""
        return self._names[int(self._ends[sample]) : int(self._ends[sample + 1])]

    def load(self, sample: int) -> Image.Image:
        """Decode an image to RGB.

        Raises:
            InputError: If it is damaged.
        """
        name = self.name(sample)
        return decode(Path(name), name)


def list_classes(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted.

    Raises:
        InputError: If there is no such folder or none in it.
    """
    check_folder(folder, "one folder a class")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        raise InputError(f"data.path: expected one folder a class in {folder}, got none")
    return classes


def _list_images(folder: Path) -> list[str]:
    files = sorted(
        os.path.join(where, name)
        for where, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(_SUFFIXES) and not name.startswith(".")
    )
    if not files:
        raise InputError(f"data.path: expected images ({', '.join(_SUFFIXES)}) in {folder}, got none")
    return files
