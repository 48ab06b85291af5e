"""The LightningDataModule behind every data set of this package: all images in memory, augmented on the device."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, tensor

from lightning_prune.data.batches import Batch, EvalBatches, TrainBatches, choose_views
from lightning_prune.data.data_checks import check_integer, check_serving, check_views
from lightning_prune.data.images import Images, check_images
from lightning_prune.data.views import apply_views, count_views
from lightning_prune.errors import InputError


class InMemoryImages(LightningDataModule):
    """Serve `(images, labels)` batches from tensors: float `(n, channels, size, size)`, normalised, and int64 `(n,)`.

    Training images are cropped out of a zero-padded image and mirrored at random, whole batches at once on the
    device. Order and augmentation depend on `seed` and the epoch only, and a run that resumes from a checkpoint, in
    mid-epoch or between epochs, sees the batches it would have seen. Pass the module itself to the Trainer: the
    loaders alone yield raw pixels.

    With `views` what a frozen network says to the training images can be kept, since each is shown in a few views only:
    `callbacks.logit_cache.CountedViews` is what this module offers for that.
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
        super().__init__()
        check_serving(batch_size, seed)
        check_integer("data.padding", padding, 0, train.pixels.shape[-1])
        check_views(views, padding, flip)
        for name, images in {"train": train, "val": val, "test": test}.items():
            check_images(name, images, num_classes)
            if images.pixels.shape[1:] != train.pixels.shape[1:]:
                expected, came = tuple(train.pixels.shape[1:]), tuple(images.pixels.shape[1:])
                raise InputError(f"{name}.pixels: expected images of shape {expected} as in train, got {came}")
        self.num_classes = num_classes
        self.in_channels: int = train.pixels.shape[1]
        self.image_size: int = train.pixels.shape[2]
        if not len(mean) == len(std) == self.in_channels or min(std) <= 0:
            raise InputError(
                f"mean, std: expected {self.in_channels} numbers each (one a channel) and std > 0, got {mean} and {std}"
            )
        self.train, self.val, self.test = train, val, test
        self.mean, self.std, self.padding, self.flip = mean, std, padding, flip
        self.batch_size, self.seed = batch_size, seed
        self.sample_count = len(train.labels)
        self.last_samples = torch.empty(0, dtype=torch.int64)
        all_views = count_views(padding, flip)
        shown = 1 if all_views == 1 else views
        self._chosen = None if shown is None else choose_views(self.sample_count, all_views, shown, seed)
        self._scale = 1 / (255 * tensor(std)[:, None, None])
        self._shift = -tensor(mean)[:, None, None] / tensor(std)[:, None, None]

    def train_dataloader(self) -> TrainBatches | EvalBatches:
        """Return shuffled, augmented batches; plain ones in fixed order under `Trainer(overfit_batches=...)`."""
        trainer, views = self.trainer, count_views(self.padding, self.flip)
        if trainer is None:
            return TrainBatches(self.train, views, self.batch_size, self.seed, chosen=self._chosen)
        if self._overfits:
            return self._in_order(self.train)
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        return TrainBatches(
            self.train,
            views,
            self.batch_size,
            self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            trained=lambda: int(progress.state_dict()["processed"]),
            chosen=self._chosen,
        )

    def val_dataloader(self) -> EvalBatches:
        """Return the validation batches."""
        return self._in_order(self.val)

    def test_dataloader(self) -> EvalBatches:
        """Return the test batches."""
        return self._in_order(self.test)

    def predict_dataloader(self) -> EvalBatches:
        """Return the test batches."""
        return self._in_order(self.test)

    def on_after_batch_transfer(self, batch: Batch | Any, dataloader_idx: int) -> tuple[Tensor, Tensor] | Any:
        """Crop, flip and normalise a batch on its device, in the Trainer's precision.

        Returns:
            Images, `(n, channels, size, size)`, and labels, `(n,)`. What is no batch of this module comes back as it
            is, of any shape: Lightning also sends a module's `example_input_array` and foreign loaders through here.
        """
        if not isinstance(batch, Batch):
            return batch
        if self.trainer is not None and self.trainer.training:
            self.last_samples = batch.samples
        return self._prepare(batch.pixels, batch.views), batch.labels

    @property
    def countable_views(self) -> int | None:
        """Return the number of views that an image is shown in, None if they are random."""
        if self._overfits:
            return 1
        return None if self._chosen is None else self._chosen.shape[1]

    def at_view(self, samples: Tensor, view: int, device: torch.device) -> Tensor:
        """Return training images as the step of an epoch gets them that shows this view.

        Args:
            samples: `(n,)`, int64, on the CPU.
            view: Below `countable_views`.
            device: Where to prepare them.

        Returns:
            `(n, channels, size, size)`, normalised, in the Trainer's precision, on `device`.
        """
        views = None if self._chosen is None or self._overfits else self._chosen[samples, view].to(device)
        return self._prepare(self.train.pixels[samples].to(device), views)

    def example_input(self, batch_size: int) -> Tensor:
        """Return the first `batch_size` training images, normalised, float32 `(batch_size, channels, size, size)`."""
        return self._normalise(self.train.pixels[:batch_size])

    @property
    def _overfits(self) -> bool:
        # Lightning sets overfit_batches from another class.
        return self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]

    def _prepare(self, pixels: Tensor, views: Tensor | None) -> Tensor:
        images = self._normalise(pixels if views is None else apply_views(pixels, views, self.padding))
        # Lightning converts a batch before it is transferred, when the pixels are still integers.
        return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images)

    def _in_order(self, images: Images) -> EvalBatches:
        if self.trainer is None:
            return EvalBatches(images, self.batch_size)
        return EvalBatches(images, self.batch_size, self.trainer.global_rank, self.trainer.world_size)

    def _normalise(self, pixels: Tensor) -> Tensor:
        scale, shift = (part.to(pixels.device, non_blocking=True) for part in (self._scale, self._shift))
        return pixels.float().mul_(scale).add_(shift)
