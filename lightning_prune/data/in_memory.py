"""A LightningDataModule with all images in memory, which are augmented on the device."""

from torch import Tensor

from lightning_prune.data.batches import choose_views
from lightning_prune.data.data_checks import check_integer, check_serving, check_views
from lightning_prune.data.image_module import ImageModule
from lightning_prune.data.images import Images, check_images
from lightning_prune.data.views import apply_views, count_views
from lightning_prune.errors import InputError


class InMemoryImages(ImageModule):
    """Serve batches from tensors.

    Training images are cropped out of a zero-padded image and mirrored at random, whole batches at once on the device.
    """

    def __init__(
        self,
        *,
        train: Images,
        val: Images,
        test: Images,
        num_classes: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        padding: int,
        flip: bool,
        batch_size: int,
        seed: int,
        views: int | None = None,
    ) -> None:
        """Check the data and keep it.

        Args:
            train: Images to train on.
            val: Images to validate on.
            test: Images to test on and predict.
            num_classes: Number of classes.
            mean: Mean of each channel, fraction of 255.
            std: Standard deviation of each channel, fraction of 255.
            padding: Width of the zero border that training crops come from, pixels; 0 for no crop.
            flip: Whether training images are mirrored left to right, every second one on average.
            batch_size: Images in a batch of one process, in training and evaluation.
            seed: Seed of order and augmentation.
            views: In how many views each training image is shown, its own ones, drawn once: epoch `e` shows all images
                in view `e % views`. None for a fresh random view in every epoch.

        Raises:
            InputError: If the tensors do not fit each other or a number is out of range.
        """
        check_serving(batch_size, seed)
        check_integer("data.padding", padding, 0, train.pixels.shape[-1])
        check_views(views, padding, flip)
        for name, images in {"train": train, "val": val, "test": test}.items():
            check_images(name, images, num_classes)
            if images.pixels.shape[1:] != train.pixels.shape[1:]:
                expected, came = tuple(train.pixels.shape[1:]), tuple(images.pixels.shape[1:])
                raise InputError(f"{name}.pixels: expected images of shape {expected} as in train, got {came}")
        all_views = count_views(padding, flip)
        shown = 1 if all_views == 1 else views
        super().__init__(
            train=train,
            val=val,
            test=test,
            num_classes=num_classes,
            in_channels=train.pixels.shape[1],
            mean=mean,
            std=std,
            batch_size=batch_size,
            seed=seed,
            all_views=all_views,
            chosen=None if shown is None else choose_views(len(train.labels), all_views, shown, seed),
        )
        self.image_size: int = train.pixels.shape[2]
        self.train, self.val, self.test = train, val, test
        self.padding, self.flip = padding, flip

    def finish(self, pixels: Tensor, views: Tensor | None) -> Tensor:
        """Cut views out of images `(n, channels, size, size)` uint8, and normalise them to float32."""
        return self._normalise(pixels if views is None else apply_views(pixels, views, self.padding))
