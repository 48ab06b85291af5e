"""What a data module of labelled images tells about itself."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class ImageData(Protocol):
    """What a LightningDataModule offers from which a classifier of its images can be built.

    Its batches are images `(n, channels, height, width)` and labels `(n,)`. All of this is known as soon as the module
    is built, before `prepare_data` and `setup`.

    Attributes:
        num_classes: Number of labels.
        in_channels: Channels of an image.
    """

    num_classes: int
    in_channels: int

    def example_input(self, batch_size: int) -> Tensor:
        """Return images as a network gets them, float32 `(batch_size, channels, height, width)`, on the CPU."""
