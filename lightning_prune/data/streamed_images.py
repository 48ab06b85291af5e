"""A LightningDataModule whose images stay on disk until a batch needs them."""

import os

import torch
from torch import Tensor

from lightning_prune.data.batches import SEEDS, choose_seeds
from lightning_prune.data.data_checks import check_integer, check_serving
from lightning_prune.data.image_module import ImageModule
from lightning_prune.data.streaming import StoredImages, Stream, Transform

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class StreamedImages(ImageModule):
    """Serve batches of images that are read from disk as they are needed.

    What the transforms return as uint8 is normalised on the device; what they return as floats is what a network gets.
    The random numbers of a transform depend on `seed`, the epoch and the image, whichever worker draws them from the
    global generators of torch, Python and NumPy.
    """

    def __init__(
        self,
        *,
        train: StoredImages,
        val: StoredImages,
        test: StoredImages,
        num_classes: int,
        train_transform: Transform,
        eval_transform: Transform,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        seed: int,
        num_workers: int | None = None,
        prefetch: int = 2,
        pin_memory: bool | None = None,
        views: int | None = None,
    ) -> None:
        """Keep what is needed to read the images; one of them is read to know its channels.

        Args:
            train: Images to train on.
            val: Images to validate on.
            test: Images to test on and predict.
            num_classes: Number of classes.
            train_transform: From an RGB image to a tensor, at random.
            eval_transform: The same for evaluation.
            mean: Mean of each channel, fraction of 255, where transforms return uint8.
            std: Standard deviation of each channel, fraction of 255, likewise.
            batch_size: Images in a batch of one process, in training and evaluation.
            seed: Seed of order and transforms.
            num_workers: Processes that load images, for each split; None for one a CPU, at most 4. 0 for none.
            prefetch: Batches that each of them has ready.
            pin_memory: Whether batches are put where a GPU copies them from faster; None for whether there is one.
            views: In how many random views each training image is shown, its own ones: epoch `e` shows all images in
                view `e % views`. None for a fresh one in every epoch.

        Raises:
            InputError: If a number is out of range, a transform gives no image, or the image is damaged.
        """
        check_serving(batch_size, seed)
        num_workers = min(4, _count_cpus()) if num_workers is None else num_workers
        pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        check_integer("data.num_workers", num_workers, 0, 2**10)
        check_integer("data.prefetch", prefetch, 1, 2**10)
        if views is not None:
            check_integer("data.views", views, 1, 2**16)
        sources = [
            Stream(images, train_transform, eval_transform, num_workers, prefetch, pin_memory)
            for images in (train, val, test)
        ]
        first = sources[0].take((torch.zeros(1, dtype=torch.int64), None)).pixels
        super().__init__(
            train=sources[0],
            val=sources[1],
            test=sources[2],
            num_classes=num_classes,
            in_channels=first.shape[1],
            mean=mean if first.dtype == torch.uint8 else (0.0,) * first.shape[1],
            std=std if first.dtype == torch.uint8 else (1.0,) * first.shape[1],
            batch_size=batch_size,
            seed=seed,
            all_views=SEEDS,
            chosen=None if views is None else choose_seeds(len(train.labels), views, seed),
        )
        self.train, self.val, self.test = train, val, test
        self._sources = sources

    def finish(self, pixels: Tensor, views: Tensor | None) -> Tensor:
        """Normalise `(n, channels, height, width)` uint8 pixels to float32; floats are normalised already."""
        return self._normalise(pixels) if pixels.dtype == torch.uint8 else pixels.float()

    def teardown(self, stage: str) -> None:
        """End the worker processes."""
        for source in self._sources:
            source.close()


def _count_cpus() -> int:
    # Those that this process may use, where the system tells.
    return len(os.sched_getaffinity(0)) if "sched_getaffinity" in dir(os) else os.cpu_count() or 1
