"""Networks as functions that return a plain `nn.Module`; `classifier.py` is the one LightningModule."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.models import digits_resnet as digits  # so slim files and runs of old call it  # noqa: F401
from lightning_prune.models.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
