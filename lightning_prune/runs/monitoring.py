"""The metric of a run: what a module logs by which checkpoints are chosen and models compared."""

from collections.abc import Mapping
from typing import Literal

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from lightning_prune.arguments import near
from lightning_prune.errors import InputError
from lightning_prune.options import SPLIT, metric_name, mode_of
from lightning_prune.reporting import Metric


def metric_of(monitor: str | None, mode: Literal["max", "min"] | None, *, tested: bool) -> Metric:
    """Return the metric that a monitor is of.

    Args:
        monitor: What the module logs in validation, such as `val/accuracy` or `val_loss`; None for nothing.
        mode: `max`, `min`, or None for what its name tells.
        tested: Whether models are judged by test data, else by the validation data.

    Raises:
        InputError: If it is no such text, or the mode is another.

    >>> metric_of("val/mean_error", None, tested=True)
    Metric(name='mean_error', mode='min', split='test')
    """
    if monitor is not None and not isinstance(monitor, str):
        raise InputError(f"expected monitor to be what the module logs, such as val/accuracy, got {monitor}")
    if mode not in (None, "max", "min"):
        raise InputError(f"expected mode to be max, min, or null for what the name of the metric tells, got {mode}")
    return Metric(metric_name(monitor or "metric"), mode_of(monitor, mode), "test" if tested else "val")


def run_metric(cfg: DictConfig, module: LightningModule, data: LightningDataModule) -> Metric:
    """Return the metric of a run, of test data if module and data have what that takes.

    Raises:
        InputError: See `metric_of`.
    """
    if cfg.monitor is not None and not is_measured(module, data, "val"):
        raise InputError(
            f"expected a validation_step and a val_dataloader for monitor={cfg.monitor}, got {type(module).__name__} "
            f"with {type(data).__name__}, which lack one; set monitor=null to train without validation"
        )
    return metric_of(cfg.monitor, cfg.mode, tested=is_measured(module, data, "test"))


def is_measured(module: LightningModule, data: LightningDataModule, split: str) -> bool:
    """Return whether a module and data have what a loop over a split takes."""
    return is_overridden(f"{_STEPS[split]}_step", module) and is_overridden(f"{split}_dataloader", data)


_STEPS = {"val": "validation", "test": "test"}
"""What modules call a split of the data."""


def logged_names(monitor: str, metric: Metric) -> list[str]:
    """Return by which names a module may log a metric of its split, the likeliest first.

    >>> logged_names("val/map", Metric("map", "max"))
    ['test/map', 'val/map', 'map']
    """
    names = [SPLIT.sub("test", monitor), monitor, metric.name] if metric.split == "test" else [monitor]
    return list(dict.fromkeys(names))


class MonitorCheck(Callback):
    """Stop a run whose module does not log what something waits for, at the end of its first validation.

    Args:
        monitors: Names of metrics, by the key of the configuration where each is told.
    """

    def __init__(self, monitors: Mapping[str, str]) -> None:
        self.monitors = dict(monitors)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a name that was not logged."""
        logged = [str(name) for name in trainer.callback_metrics]
        for key, monitor in self.monitors.items():
            if monitor not in logged:
                raise InputError(
                    f"expected {key} to be what {type(pl_module).__name__} logs in validation, one of "
                    f"{', '.join(sorted(logged)) or 'nothing so far'}, got {monitor}{near(monitor, logged)}"
                )
