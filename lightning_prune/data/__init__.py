"""Functions that return a LightningDataModule; one file a data set."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.data.image_data import ImageData
from lightning_prune.data.images import Images
from lightning_prune.data.in_memory import InMemoryImages

__all__ = ["ImageData", "Images", "InMemoryImages"]
