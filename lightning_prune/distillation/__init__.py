"""What a callback needs to teach: teachers, recorders, losses."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.distillation.batch_labels import labels
from lightning_prune.distillation.feature_matching import FeatureMatching, loss_name
from lightning_prune.distillation.logit_cache import LogitCache
from lightning_prune.distillation.losses.pair import LogitLoss
from lightning_prune.distillation.ramp import Ramp
from lightning_prune.distillation.teacher import Teacher

__all__ = [
    "FeatureMatching",
    "LogitCache",
    "LogitLoss",
    "Ramp",
    "Teacher",
    "labels",
    "loss_name",
]
