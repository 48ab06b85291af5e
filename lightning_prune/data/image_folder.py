"""Images in one folder a class, read from disk as they are needed."""

from collections.abc import Sequence
from os import PathLike

from lightning_prune.data.data_checks import check_folder, check_fraction, check_integer
from lightning_prune.data.file_images import FileImages, list_classes
from lightning_prune.data.splits import split
from lightning_prune.data.streamed_images import IMAGENET_MEAN, IMAGENET_STD, StreamedImages
from lightning_prune.data.streaming import Transform
from lightning_prune.data.transforms import CentreCrop, RandomResizedCrop


def image_folder(
    path: str | PathLike[str],
    image_size: int = 64,
    validation: float = 0.1,
    batch_size: int = 128,
    seed: int = 0,
    views: int | None = None,
    train_transform: Transform | None = None,
    eval_transform: Transform | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    num_workers: int | None = None,
    prefetch: int = 2,
    pin_memory: bool | None = None,
) -> StreamedImages:
    """Serve `path/train/<class>/**/*`, and `val` and `test` likewise: files that Pillow reads, as RGB.

    Without `val` a part of `train` is held out for validation. Without `test`, `val` is tested on, and the log says so;
    without both a part of `train` is held out for each. Images are read when a batch needs them: memory holds the
    batches that are under way, and the names of the files.

    Args:
        path: The folder. Classes are numbered by name.
        image_size: Height and width that the transforms below give by default, pixels.
        validation: Fraction of the images under `train` held out.
        batch_size: Images in a batch of one process.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn; None for a random one every epoch.
        train_transform: From an RGB image of Pillow to a tensor `(channels, height, width)`: pixels as uint8, or floats
            as the network gets them. By default a random crop, resized, mirrored every second time.
        eval_transform: The same for validation and test. By default the central seven eighths, resized.
        mean: Mean of each channel, fraction of 255, which is taken off uint8 pixels; by default that of ImageNet.
        std: Standard deviation of each channel, by which they are divided then.
        num_workers: Processes that load images, for each split; None for one a CPU, at most 4. 0 for none.
        prefetch: Batches that each of them has ready.
        pin_memory: Whether batches are put where a GPU copies them from faster; None for whether there is one.

    Returns:
        The data module: as many classes as folders, 3 channels.

    Raises:
        InputError: If a folder is missing or empty, the classes differ, an image is damaged or a number out of range.
    """
    check_integer("data.image_size", image_size, 1, 2**14)
    check_fraction("data.validation", validation)
    root = check_folder(path, "train/<class>/ and val/<class>/ or test/<class>/")
    classes = list_classes(root / "train")
    found = {part: FileImages(root / part, classes) for part in ("train", "val", "test") if (root / part).is_dir()}
    train, val, test = split(found, validation, seed)
    return StreamedImages(
        train=train,
        val=val,
        test=test,
        num_classes=len(classes),
        train_transform=train_transform or RandomResizedCrop(image_size),
        eval_transform=eval_transform or CentreCrop(image_size),
        mean=tuple(mean),
        std=tuple(std),
        batch_size=batch_size,
        seed=seed,
        num_workers=num_workers,
        prefetch=prefetch,
        pin_memory=pin_memory,
        views=views,
    )
