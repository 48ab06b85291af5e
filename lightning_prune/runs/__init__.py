"""What `lightning-prune train` does, stage by stage, and what it leaves, read again."""

from lightning_prune.torchvision_operators import DECLARED as _DECLARED  # noqa: F401  # before Lightning is imported

# isort: split
from lightning_prune.runs.building import build_data
from lightning_prune.runs.comparison import print_report
from lightning_prune.runs.example_inputs import labelled_images, resized, training_inputs
from lightning_prune.runs.finished_run import FinishedRun, dense_module, finished_configuration, finished_run
from lightning_prune.runs.job import run_job
from lightning_prune.runs.messages import ending_in_one_line
from lightning_prune.runs.modules import network_of
from lightning_prune.runs.second_look import measured_again

__all__ = [
    "FinishedRun",
    "build_data",
    "dense_module",
    "ending_in_one_line",
    "finished_configuration",
    "finished_run",
    "labelled_images",
    "measured_again",
    "network_of",
    "print_report",
    "resized",
    "run_job",
    "training_inputs",
]
