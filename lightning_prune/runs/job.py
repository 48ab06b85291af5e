"""One job of the command line: a run, or one of a sweep, from its configuration to its end."""

import os
import shutil
import signal
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.syntax import Syntax

from lightning_prune.errors import InputError
from lightning_prune.options import remove_empty, spelled, wants_full_errors
from lightning_prune.reporting import RunFolder, read_summary
from lightning_prune.runs.comparison import print_report
from lightning_prune.runs.configurations import job_configuration
from lightning_prune.runs.messages import joined, one_line, quiet_libraries
from lightning_prune.runs.pipeline import run_stages


def run_job(cfg: DictConfig) -> None:
    """Run one job; what a person got wrong ends it with one line, and in a sweep does not end the others.

    A run that is refused before its first step leaves nothing.

    Args:
        cfg: As Hydra has composed it.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    of_hydra = {folder.hydra_overrides.parent.name, f"{hydra.job.name}.log"}
    is_new = {path.name for path in folder.path.iterdir()} <= of_hydra
    try:
        with one_line():
            resumes = cfg.resume is not None
            cfg = job_configuration(cfg)
        if resumes and folder.summary.is_file() and OmegaConf.load(folder.config) == cfg:
            print_ended(folder)
            return
        if cfg.print_config:
            print_configuration(cfg)
        _run(cfg)
    except InputError as error:
        if is_new and hydra.mode == RunMode.RUN:
            _remove_unless_begun(folder)
        if wants_full_errors():
            raise
        if hydra.mode == RunMode.RUN:
            raise SystemExit(f"Error: {joined(error)}") from error
        print(f"Job {hydra.job.num}: {joined(error)}", file=sys.stderr)


def print_ended(folder: RunFolder) -> None:
    """Print once more what a run has ended with."""
    summary, path = read_summary(folder.summary), os.path.relpath(folder.path)
    print_report(folder, summary.rows, summary.metric, summary.extra.get("pruning", {}))
    print(
        f"\nThis run has ended, and nothing was done. lightning-prune evaluate {path} measures anew, resume={path} "
        "trainer.max_epochs=... trains longer."
    )


@rank_zero_only
def print_configuration(cfg: DictConfig) -> None:
    """Print all that is configured."""
    Console().print(Syntax(OmegaConf.to_yaml(cfg, resolve=True), "yaml", theme="ansi_dark", word_wrap=True))


def _run(cfg: DictConfig) -> None:
    """Run all stages and say how to go on if that is stopped."""
    quiet_libraries()
    try:
        run_stages(cfg)
    except (KeyboardInterrupt, SystemExit) as stop:
        typed = spelled(sys.argv[0], "train")
        print(f"Stopped. Go on with: {typed} resume={os.path.relpath(cfg.run_folder)}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM if isinstance(stop, SIGTERMException) else 1) from stop


def _remove_unless_begun(folder: RunFolder) -> None:
    """Remove a new run's folder in which nothing was learned; one in which other things lie is left."""
    if folder.checkpoints.exists() or os.environ.get("LOCAL_RANK", "0") != "0":
        return
    for path in folder.path.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    remove_empty(folder.path)
