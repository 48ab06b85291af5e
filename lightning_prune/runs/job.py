"""One job of the command line: a run, or one of a sweep, from its configuration to its end."""

import os
import signal
import sys

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from lightning_prune.errors import InputError
from lightning_prune.runs.configurations import job_configuration
from lightning_prune.runs.messages import one_line, quiet_libraries
from lightning_prune.runs.pipeline import run_stages


def run_job(cfg: DictConfig) -> None:
    """Run one job; what a person got wrong ends it with one line, and in a sweep does not end the others.

    Args:
        cfg: As Hydra has composed it.
    """
    try:
        with one_line():
            cfg = job_configuration(cfg)
        with one_line(InputError):
            _run(cfg)
    except CompactHydraException as error:
        if HydraConfig.get().mode == RunMode.RUN:
            raise
        print(f"Job {HydraConfig.get().job.num}: {error}", file=sys.stderr)


def _run(cfg: DictConfig) -> None:
    """Run all stages and say how to go on if that is stopped."""
    quiet_libraries()
    try:
        run_stages(cfg)
    except (KeyboardInterrupt, SystemExit) as stop:
        print(f"Stopped. Go on with: python train.py resume={os.path.relpath(cfg.run_folder)}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM if isinstance(stop, SIGTERMException) else 1) from stop
