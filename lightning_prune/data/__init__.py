"""Functions that return a LightningDataModule; one file a data set."""

import lightning_prune.torchvision_operators  # noqa: F401  # before anything imports Lightning
from lightning_prune.data.image_data import ImageData
from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages

__all__ = ["ImageData", "Images", "InMemoryImages"]
