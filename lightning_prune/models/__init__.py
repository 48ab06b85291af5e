"""Networks as functions that return a plain `nn.Module`; `classifier.py` is the one LightningModule."""

from lightning_prune.models.classifier import ImageClassifier

__all__ = ["ImageClassifier"]
