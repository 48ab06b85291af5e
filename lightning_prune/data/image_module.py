"""What the LightningDataModules of this package have in common: loaders that resume, and views that can be counted."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, tensor

from lightning_prune.data.batches import Batch, EvalBatches, Source, TrainBatches
from lightning_prune.data.data_checks import check_serving
from lightning_prune.errors import InputError


class ImageModule(LightningDataModule, ABC):
    """Serve `(images, labels)` batches: float `(n, channels, height, width)`, normalised, and int64 `(n,)`.

    Order and augmentation depend on `seed` and the epoch only, and a run that resumes from a checkpoint, in mid-epoch
    or between epochs, sees the batches it would have seen. Pass the module itself to the Trainer: the loaders alone
    yield what is finished on the device.

    With `views` what a frozen network says to the training images can be kept, since each is shown in a few views only:
    `callbacks.logit_cache.CountedViews` is what this module offers for that.
    """

    def __init__(
        self,
        *,
        train: Source,
        val: Source,
        test: Source,
        num_classes: int,
        in_channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int,
        seed: int,
        all_views: int,
        chosen: Tensor | None,
    ) -> None:
        """Keep the data.

        Args:
            train: Images to train on.
            val: Images to validate on.
            test: Images to test on and predict.
            num_classes: Number of classes.
            in_channels: Channels of an image.
            mean: Mean of each channel, fraction of 255.
            std: Standard deviation of each channel, fraction of 255.
            batch_size: Images in a batch of one process, in training and evaluation.
            seed: Seed of order and augmentation.
            all_views: Number of views of an image.
            chosen: `(samples, k)`, the views that the epochs show in turn; None to draw one of each image in each
                epoch.

        Raises:
            InputError: If a number is out of range.
        """
        super().__init__()
        check_serving(batch_size, seed)
        if not len(mean) == len(std) == in_channels or min(std) <= 0:
            raise InputError(
                f"mean, std: expected {in_channels} numbers each (one a channel) and std > 0, got {mean} and {std}"
            )
        self.num_classes, self.in_channels, self.mean, self.std = num_classes, in_channels, mean, std
        self.batch_size, self.seed = batch_size, seed
        self.sample_count = len(train.labels)
        self.last_samples = torch.empty(0, dtype=torch.int64)
        self._train, self._val, self._test = train, val, test
        self._all_views, self._chosen = all_views, chosen
        self._scale = 1 / (255 * tensor(std)[:, None, None])
        self._shift = -tensor(mean)[:, None, None] / tensor(std)[:, None, None]

    @abstractmethod
    def finish(self, pixels: Tensor, views: Tensor | None) -> Tensor:
        """Return a batch as a network gets it.

        Args:
            pixels: `(n, channels, height, width)`, as a source serves them.
            views: `(n,)`, as a source serves them; None for the images as they are.

        Returns:
            `(n, channels, height, width)`, float32, normalised.
        """

    def train_dataloader(self) -> TrainBatches | EvalBatches:
        """Return shuffled, augmented batches; plain ones in fixed order under `Trainer(overfit_batches=...)`."""
        trainer = self.trainer
        if trainer is None:
            return TrainBatches(self._train, self._all_views, self.batch_size, self.seed, chosen=self._chosen)
        if self._overfits:
            return self._in_order(self._train)
        progress = trainer.fit_loop.epoch_loop.batch_progress.current
        return TrainBatches(
            self._train,
            self._all_views,
            self.batch_size,
            self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            trained=lambda: int(progress.state_dict()["processed"]),
            chosen=self._chosen,
        )

    def val_dataloader(self) -> EvalBatches:
        """Return the validation batches."""
        return self._in_order(self._val)

    def test_dataloader(self) -> EvalBatches:
        """Return the test batches."""
        return self._in_order(self._test)

    def predict_dataloader(self) -> EvalBatches:
        """Return the test batches."""
        return self._in_order(self._test)

    def on_after_batch_transfer(self, batch: Batch | Any, dataloader_idx: int) -> tuple[Tensor, Tensor] | Any:
        """Crop, flip and normalise a batch on its device, in the Trainer's precision.

        Returns:
            Images, `(n, channels, height, width)`, and labels, `(n,)`. What is no batch of this module comes back as
            it is, of any shape: Lightning also sends a module's `example_input_array` and foreign loaders through here.
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
            `(n, channels, height, width)`, normalised, in the Trainer's precision, on `device`.
        """
        views = None if self._chosen is None or self._overfits else self._chosen[samples, view]
        batch = self._train.take((samples, views))
        return self._prepare(batch.pixels.to(device), None if batch.views is None else batch.views.to(device))

    def example_input(self, batch_size: int) -> Tensor:
        """Return training images, normalised, float32 `(batch_size, channels, height, width)`: the first ones.

        Where there are fewer they begin again.
        """
        batch = self._train.take((torch.arange(batch_size) % self.sample_count, None))
        return self.finish(batch.pixels, None)

    @property
    def _overfits(self) -> bool:
        # Lightning sets overfit_batches from another class.
        return self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]

    def _prepare(self, pixels: Tensor, views: Tensor | None) -> Tensor:
        images = self.finish(pixels, views)
        # Lightning converts a batch before it is transferred, when the pixels are still integers.
        return images if self.trainer is None else self.trainer.precision_plugin.convert_input(images)

    def _in_order(self, source: Source) -> EvalBatches:
        if self.trainer is None:
            return EvalBatches(source, self.batch_size)
        return EvalBatches(source, self.batch_size, self.trainer.global_rank, self.trainer.world_size)

    def _normalise(self, pixels: Tensor) -> Tensor:
        scale, shift = (part.to(pixels.device, non_blocking=True) for part in (self._scale, self._shift))
        return pixels.float().mul_(scale).add_(shift)
