"""The LightningDataModule behind every data set of this package: all images in memory, augmented on the device."""

from lightning.pytorch import LightningDataModule
from torch import Tensor, tensor

from lightning_prune.data.batches import Batch, EvalBatches, TrainBatches
from lightning_prune.data.checks import check_integer, check_serving
from lightning_prune.data.images import Images, check_images
from lightning_prune.data.views import apply_views, count_views
from lightning_prune.errors import InputError


class InMemoryImages(LightningDataModule):
    """Serve `(images, labels)` batches from tensors: float `(n, channels, size, size)`, normalised, and int64 `(n,)`.

    Training images are cropped out of a zero-padded image and mirrored at random, whole batches at once on the
    device. Order and augmentation depend on `seed` and the epoch only, and a run that resumes from a checkpoint, in
    mid-epoch or between epochs, sees the batches it would have seen. Pass the module itself to the Trainer: the
    loaders alone yield raw pixels.
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

        Raises:
            InputError: If the tensors do not fit each other or a number is out of range.
        """
        super().__init__()
        check_serving(batch_size, seed)
        check_integer("data.padding", padding, 0, train.pixels.shape[-1])
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
        self._scale = 1 / (255 * tensor(std)[:, None, None])
        self._shift = -tensor(mean)[:, None, None] / tensor(std)[:, None, None]

    def train_dataloader(self) -> TrainBatches | EvalBatches:
        """Return shuffled, augmented batches; plain ones in fixed order under `Trainer(overfit_batches=...)`."""
        trainer, views = self.trainer, count_views(self.padding, self.flip)
        if trainer is None:
            return TrainBatches(self.train, views, self.batch_size, self.seed)
        if trainer.overfit_batches > 0:  # type: ignore[attr-defined]  # Lightning sets it from another class
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

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Crop, flip and normalise a batch on its device, in the Trainer's precision."""
        pixels = apply_views(batch.pixels, batch.views, self.padding) if batch.views is not None else batch.pixels
        images = self._normalise(pixels)
        if self.trainer is not None:
            # Lightning converted the batch before this hook, when the pixels were still integers.
            images = self.trainer.precision_plugin.convert_input(images)
        return images, batch.labels

    def example_input(self, batch_size: int) -> Tensor:
        """Return the first `batch_size` training images, normalised, float32 `(batch_size, channels, size, size)`."""
        return self._normalise(self.train.pixels[:batch_size])

    def _in_order(self, images: Images) -> EvalBatches:
        if self.trainer is None:
            return EvalBatches(images, self.batch_size)
        return EvalBatches(images, self.batch_size, self.trainer.global_rank, self.trainer.world_size)

    def _normalise(self, pixels: Tensor) -> Tensor:
        scale, shift = (part.to(pixels.device, non_blocking=True) for part in (self._scale, self._shift))
        return pixels.float().mul_(scale).add_(shift)
