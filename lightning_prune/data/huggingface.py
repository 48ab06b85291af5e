"""Image sets of the Hugging Face hub, by name or from a folder, read from disk as they are needed."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from lightning_prune.data.arrow_images import ArrowImages, open_table, read_labels
from lightning_prune.data.data_checks import check_fraction, check_integer
from lightning_prune.data.hub import download_parts
from lightning_prune.data.hub_layout import Columns, Parts, arrange, choose, find_columns
from lightning_prune.data.splits import split
from lightning_prune.data.streamed_images import IMAGENET_MEAN, IMAGENET_STD, StreamedImages
from lightning_prune.data.streaming import Transform
from lightning_prune.data.transforms import CentreCrop, RandomResizedCrop
from lightning_prune.errors import InputError

_NAMES = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What the parts are called on the hub."""


def huggingface(
    path: str | PathLike[str],
    name: str | None = None,
    train_split: str | None = None,
    val_split: str | None = None,
    test_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
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
    """Serve labelled images from parquet files, or the Arrow files that `datasets` saves, as RGB.

    Parquet files are copied once, uncompressed, into the cache of the Hugging Face libraries (`HF_HOME`), and mapped
    into memory: any image is at hand, and memory holds the batches that are under way. Parts that are missing are made
    as `image_folder` makes them.

    Args:
        path: A folder with such files, or the name of a data set on huggingface.co, such as `uoft-cs/cifar10`.
        name: Of the configuration, where there are several.
        train_split: Name of the part to train on; None for `train`.
        val_split: Name of the part to validate on; None for `validation`, or so, if there is one.
        test_split: Name of the part to test on; None for `test`, if there is one.
        image_column: Name of the column of images; None for the only one.
        label_column: Name of the column of labels, integers or strings; None for the only one of classes.
        image_size: Height and width that the transforms give by default, pixels.
        validation: Fraction of the training images held out.
        batch_size: Images in a batch of one process.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn; None for a random one every epoch.
        train_transform: As `image_folder` has it.
        eval_transform: As `image_folder` has it.
        mean: Mean of each channel, fraction of 255, which is taken off uint8 pixels; by default that of ImageNet.
        std: Standard deviation of each channel, by which they are divided then.
        num_workers: Processes that load images, for each part; None for one a CPU, at most 4. 0 for none.
        prefetch: Batches that each of them has ready.
        pin_memory: Whether batches are put where a GPU copies them from faster; None for whether there is one.

    Returns:
        The data module: as many classes as the data set says it has, or as its labels show.

    Raises:
        InputError: If the data cannot be had or read, a part or column is missing, or a number is out of range.
    """
    check_integer("data.image_size", image_size, 1, 2**14)
    check_fraction("data.validation", validation)
    folder = Path(path) if Path(path).is_dir() else download_parts(str(path), name)
    kinds = [[file.relative_to(folder) for file in folder.rglob(f"*{kind}")] for kind in (".parquet", ".arrow")]
    if not any(kinds):
        raise InputError(f"data.path: expected parquet files or the folders that datasets saves in {folder}, got none")
    parts = choose(arrange(kinds[0] or kinds[1]), name)
    files = {
        part: [folder / file for file in parts[chosen]]
        for part, chosen in _choose_parts(parts, {"train": train_split, "val": val_split, "test": test_split}).items()
    }
    columns = find_columns(open_table(files["train"][0]).schema, image_column, label_column)
    found, num_classes = _open(files, columns)
    train, val, test = split(found, validation, seed)
    return StreamedImages(
        train=train,
        val=val,
        test=test,
        num_classes=num_classes,
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


def _choose_parts(parts: Parts, given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the name of each part that there is, under `train`, `val` and `test`."""
    chosen = {}
    for part, name in given.items():
        names = _NAMES[part] if name is None else (name,)
        found = next((known for known in names if known in parts), None)
        if found is not None:
            chosen[part] = found
        elif name is not None or part == "train":
            raise InputError(f"data.{part}_split: expected one of {', '.join(parts)}, got {name or 'none'}")
    return chosen


def _open(files: Mapping[str, list[Path]], columns: Columns) -> tuple[dict[str, ArrowImages], int]:
    classes = columns.classes
    if classes is None:
        values = {value for file in files["train"] for value in open_table(file)[columns.label].unique().to_pylist()}
        if any(isinstance(value, str) for value in values):
            classes = sorted(value for value in values if value is not None)
    labels = {part: read_labels(some, columns.label, classes) for part, some in files.items()}
    images = {part: ArrowImages(some, columns.image, labels[part]) for part, some in files.items()}
    return images, len(classes) if classes else 1 + max(int(numbers.max()) for numbers in labels.values())
