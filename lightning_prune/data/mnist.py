"""MNIST from parquet files, downloaded from the Hugging Face hub unless a folder is given."""

from os import PathLike

from lightning_prune.data.data_checks import check_integer, check_serving, check_views
from lightning_prune.data.hub import download, read_splits
from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages

_PADDING = 2


def mnist(
    path: str | PathLike[str] | None = None,
    batch_size: int = 128,
    validation: int = 5000,
    seed: int = 0,
    views: int | None = None,
) -> InMemoryImages:
    """Load MNIST: 70,000 gray images of 28 x 28 pixels, 10,000 of them for testing.

    Training images are cropped from a 2-pixel border; digits are not mirrored. The validation images are held out of
    the training set, so that nothing is chosen by the test set.

    Args:
        path: Folder with parquet files in the layout of the hub, `train` and `test` in their names; None to download.
        batch_size: Images in a batch of one process.
        validation: Number of training images held out, every class by its share.
        seed: Seed of the validation split, the order and the augmentation.
        views: In how many views each training image is shown, in turn, 1 to 25; None for a random one every epoch.

    Returns:
        The data module: 10 classes, 1 channel, size 28.

    Raises:
        InputError: If the data cannot be had or read, or a number is out of range.

    Reference:
        Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, Gradient-Based Learning Applied to Document Recognition, 1998.
    """
    check_serving(batch_size, seed)
    check_integer("data.validation", validation, 1, 59_999)
    check_views(views, padding=_PADDING, flip=False)
    folder = download("ylecun/mnist", "mnist/*.parquet") if path is None else path
    parts = read_splits(folder, ("label",), 10, validation, seed)
    # Decoded images have three channels, which are the same in a gray one.
    train, val, test = (Images(images.pixels[:, :1].clone(), images.labels) for images in parts)
    return InMemoryImages(
        train=train,
        val=val,
        test=test,
        num_classes=10,
        mean=(0.1307,),
        std=(0.3081,),
        padding=_PADDING,
        flip=False,
        batch_size=batch_size,
        seed=seed,
        views=views,
    )
