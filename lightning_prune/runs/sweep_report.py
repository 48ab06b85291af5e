"""What Hydra calls when a sweep has ended."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console

from lightning_prune.reporting import SweepFolder, sweep_report


class SweepReport(Callback):
    """Print one table and draw one picture of all jobs when a sweep has ended."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note where the sweep goes: it is removed if it is refused as a whole."""
        HydraConfig.instance().set_config(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder."""
        folder = SweepFolder(Path(config.hydra.sweep.dir))
        Console().print(sweep_report(folder.path))
        if not all(job.summary.is_file() for job in folder.jobs):
            raise SystemExit(1)
