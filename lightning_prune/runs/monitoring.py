"""The metric of a run: what a module logs by which checkpoints are chosen and models compared."""

import re

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from lightning_prune.errors import InputError
from lightning_prune.options import near
from lightning_prune.reporting import Metric

_SPLIT = re.compile(r"(?:(?<=^)|(?<=[/_.-]))(?:validation|valid|val|eval|test)(?=[/_.-]|$)")
_LESS = re.compile(r"(?:loss|error|perplexity|mae|mse|rmse|wer|cer)$")


def metric_of(monitor: str | None, mode: str | None, *, tested: bool) -> Metric:
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
    name = _SPLIT.sub("", monitor or "metric").strip("/_.-") or (monitor or "metric")
    of_less = mode == "min" or (mode is None and _LESS.search(name.lower()) is not None)
    return Metric(name, "min" if of_less else "max", "test" if tested else "val")


def run_metric(cfg: DictConfig, module: LightningModule, data: LightningDataModule) -> Metric:
    """Return the metric of a run, of test data if module and data have what that takes.

    Raises:
        InputError: See `metric_of`.
    """
    tested = is_overridden("test_step", module) and is_overridden("test_dataloader", data)
    return metric_of(cfg.monitor, cfg.mode, tested=tested)


def logged_names(monitor: str, metric: Metric) -> list[str]:
    """Return by which names a module may log a metric of its split, the likeliest first.

    >>> logged_names("val/map", Metric("map", "max"))
    ['test/map', 'val/map', 'map']
    """
    names = [_SPLIT.sub("test", monitor), monitor, metric.name] if metric.split == "test" else [monitor]
    return list(dict.fromkeys(names))


class MonitorCheck(Callback):
    """Stop a run whose module does not log what chooses its checkpoints, at the end of its first validation.

    Args:
        monitor: The name of the metric.
    """

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a name that was not logged."""
        logged = [str(name) for name in trainer.callback_metrics]
        if self.monitor not in logged:
            raise InputError(
                f"expected monitor to be what {type(pl_module).__name__} logs in validation, one of "
                f"{', '.join(sorted(logged)) or 'nothing so far'}, got {self.monitor}{near(self.monitor, logged)}"
            )
