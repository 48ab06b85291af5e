"""How good a model is: its own test loop over the data, once."""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torchmetrics
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig, open_dict
from torch import Tensor

from lightning_prune.reporting import Metric
from lightning_prune.runs.monitoring import is_measured, logged_names
from lightning_prune.runs.trainers import build_trainer


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the test loop of a model gave.

    Attributes:
        score: The metric; NaN where the module has not logged it.
        logged: All that was logged, by name.
        classes: The class that has the largest output for each example, `(n,)`; None where outputs are no logits.
        calls: How often the loop has called the module's `forward`.
    """

    score: float
    logged: Mapping[str, float]
    classes: Tensor | None
    calls: int = 0


@dataclass
class _Outputs:
    """What `forward` gave while it was watched."""

    calls: int = 0
    classes: list[Tensor] | None = field(default_factory=list)


def evaluate(
    module: LightningModule,
    data: LightningDataModule,
    cfg: DictConfig,
    metric: Metric,
    *,
    accelerator: str | None = None,
) -> Evaluation:
    """Run the test loop of a module, or its validation loop if the metric is of that split.

    Args:
        module: Any one; it stays as it was.
        data: What it is tested on.
        cfg: The configuration of the run, whose Trainer sets precision and limits; it runs on one device, no logger.
        metric: What is asked for.
        accelerator: What it runs on; None for that of the configuration.
    """
    if not is_measured(module, data, metric.split):
        return Evaluation(math.nan, {}, None)
    tester = _tester(cfg, accelerator)
    with _watched(module) as outputs, _alone(module):
        loop = tester.test if metric.split == "test" else tester.validate
        loop(module, datamodule=data, verbose=False)
    logged = {name: float(value) for name, value in tester.callback_metrics.items()}
    classes = torch.cat(outputs.classes) if outputs.classes else None
    return Evaluation(_score(logged, cfg.monitor, metric), logged, classes, outputs.calls)


def _tester(cfg: DictConfig, accelerator: str | None) -> Trainer:
    """Return a Trainer for tests on one device, by the settings of a run."""
    own = copy.deepcopy(cfg)
    with open_dict(own):
        own.trainer.update(_ALONE)
        if accelerator is not None:
            own.trainer.update({"accelerator": accelerator, "precision": "32-true"})
    return build_trainer(own, [], [], False)


_ALONE = {
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "profiler": None,
    "callbacks": None,
    "overfit_batches": 0,
}
"""Settings of a Trainer that tests."""


def _score(logged: Mapping[str, float], monitor: str | None, metric: Metric) -> float:
    """Return the metric among what was logged; NaN if it is not there."""
    for name in logged_names(monitor, metric) if monitor is not None else ():
        for key, value in logged.items():
            if key == name or key.startswith(f"{name}/dataloader_idx_"):
                return value
    return math.nan


@contextmanager
def _alone(module: LightningModule) -> Iterator[None]:
    """Keep metrics from waiting for the other processes of a run, which do not test."""
    metrics = [part for part in module.modules() if isinstance(part, torchmetrics.Metric)]
    before = [metric.distributed_available_fn for metric in metrics]
    for metric in metrics:
        metric.distributed_available_fn = _never
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*sync_dist=True")
            yield
    finally:
        for metric, known in zip(metrics, before, strict=True):
            metric.distributed_available_fn = known


def _never() -> bool:
    """Return that there are no other processes."""
    return False


@contextmanager
def _watched(module: LightningModule) -> Iterator[_Outputs]:
    """Note what a module's `forward` gives, whether it is called by its name or as the module."""
    outputs, own, forward = _Outputs(), vars(module).get("forward"), module.forward

    def noted(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        outputs.calls += 1
        if not (isinstance(out, Tensor) and out.ndim == 2 and out.is_floating_point() and out.shape[1] > 1):
            outputs.classes = None
        if outputs.classes is not None:
            outputs.classes.append(out.detach().argmax(dim=1).cpu())
        return out

    vars(module)["forward"] = noted
    try:
        yield outputs
    finally:
        if own is None:
            vars(module).pop("forward", None)
        else:
            vars(module)["forward"] = own
