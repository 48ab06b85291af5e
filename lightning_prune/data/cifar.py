"""CIFAR-10 and CIFAR-100 from parquet files, downloaded from the Hugging Face hub unless a folder is given."""

from os import PathLike

from lightning_prune.data.data_checks import check_integer, check_serving, check_views
from lightning_prune.data.hub import download, read_splits
from lightning_prune.data.in_memory import InMemoryImages


def cifar10(
    path: str | PathLike[str] | None = None,
    batch_size: int = 128,
    validation: int = 5000,
    seed: int = 0,
    views: int | None = None,
) -> InMemoryImages:
    """Load CIFAR-10: 60,000 colour images of 32 x 32 pixels, 10,000 of them for testing.

    Training images are cropped from a 4-pixel border and mirrored. The validation images are held out of the training
    set, so that nothing is chosen by the test set. The normalisation is the one of the SFP and FPGM repositories.

    Args:
        path: Folder with parquet files in the layout of the hub, `train` and `test` in their names; None to download.
        batch_size: Images in a batch of one process.
        validation: Number of training images held out, every class by its share.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn, 1 to 162; None for a random one every epoch.

    Returns:
        The data module: 10 classes, 3 channels, size 32.

    Raises:
        InputError: If the data cannot be had or read, or a number is out of range.

    Reference:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    check_serving(batch_size, seed)
    check_integer("data.validation", validation, 1, 49_999)
    check_views(views, padding=4, flip=True)
    folder = download("uoft-cs/cifar10", "plain_text/*.parquet") if path is None else path
    train, val, test = read_splits(folder, ("label",), 10, validation, seed)
    return InMemoryImages(
        train=train,
        val=val,
        test=test,
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
        padding=4,
        flip=True,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )


def cifar100(
    path: str | PathLike[str] | None = None,
    batch_size: int = 128,
    validation: int = 5000,
    seed: int = 0,
    views: int | None = None,
) -> InMemoryImages:
    """Load CIFAR-100: as `cifar10`, with 100 classes (the fine labels).

    Args:
        path: Folder with parquet files in the layout of the hub, `train` and `test` in their names; None to download.
        batch_size: Images in a batch of one process.
        validation: Number of training images held out, every class by its share.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn, 1 to 162; None for a random one every epoch.

    Returns:
        The data module: 100 classes, 3 channels, size 32.

    Raises:
        InputError: If the data cannot be had or read, or a number is out of range.

    Reference:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    check_serving(batch_size, seed)
    check_integer("data.validation", validation, 1, 49_999)
    check_views(views, padding=4, flip=True)
    folder = download("uoft-cs/cifar100", "cifar100/*.parquet") if path is None else path
    train, val, test = read_splits(folder, ("fine_label", "label"), 100, validation, seed)
    return InMemoryImages(
        train=train,
        val=val,
        test=test,
        num_classes=100,
        mean=(129.3 / 255, 124.1 / 255, 112.4 / 255),
        std=(68.2 / 255, 65.4 / 255, 70.4 / 255),
        padding=4,
        flip=True,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )
