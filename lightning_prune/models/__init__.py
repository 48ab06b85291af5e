"""Networks as functions that return a plain `nn.Module`; `classifier.py` is the one LightningModule."""

import lightning_prune.torchvision_operators  # noqa: F401  # before anything imports Lightning
from lightning_prune.models import digits_resnet as digits  # so slim files and runs of old call it  # noqa: F401
from lightning_prune.models.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
