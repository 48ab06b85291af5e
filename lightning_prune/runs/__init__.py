"""What train.py does, stage by stage."""

from lightning_prune.runs.building import build, build_network
from lightning_prune.runs.configurations import read_configuration, refuse_gone
from lightning_prune.runs.finished_run import FinishedRun, finished_run
from lightning_prune.runs.job import run_job
from lightning_prune.runs.messages import ending_in_one_line

__all__ = [
    "FinishedRun",
    "build",
    "build_network",
    "ending_in_one_line",
    "finished_run",
    "read_configuration",
    "refuse_gone",
    "run_job",
]
