"""What train.py does, stage by stage."""

from lightning_prune.runs.checkpoints import WholeFiles, fit, saving
from lightning_prune.runs.comparison import Comparison, ending
from lightning_prune.runs.exporting import export_last
from lightning_prune.runs.finetuning import DENSE, SLIM, affordable_epochs, begin, save_momentum
from lightning_prune.runs.overrides import (
    check_finetuning,
    check_numbers,
    reads_dense,
    reads_momentum,
    reads_teacher,
    refuse_renamed,
    refuse_unread,
)
from lightning_prune.runs.quiet import hush
from lightning_prune.runs.resolvers import RESOLVERS
from lightning_prune.runs.shared_folders import made_once
from lightning_prune.runs.stages import check_stages, described, finetuning, set_epochs, settle_paths, teaching

__all__ = [
    "DENSE",
    "RESOLVERS",
    "SLIM",
    "Comparison",
    "WholeFiles",
    "affordable_epochs",
    "begin",
    "check_finetuning",
    "check_numbers",
    "check_stages",
    "described",
    "ending",
    "export_last",
    "finetuning",
    "fit",
    "hush",
    "made_once",
    "reads_dense",
    "reads_momentum",
    "reads_teacher",
    "refuse_renamed",
    "refuse_unread",
    "save_momentum",
    "saving",
    "set_epochs",
    "settle_paths",
    "teaching",
]
