"""What Lightning's training loop holds in mid-epoch and leaves out of checkpoints, read from its private parts.

Written for Lightning 2.6 and torchmetrics 1.9; nothing else in this package touches what those keep to themselves.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.fabric.utilities.types import _Stateful
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_prune.training.random_state import set_random_state

State = dict[str, Any]

_REDUCTIONS = (torch.mean, torch.sum, torch.min, torch.max, sum, min, max)
"""What `reduce_fx` of `self.log` can be, written to checkpoints by position."""

_LOG_ARGUMENTS = (
    "fx",
    "name",
    "prog_bar",
    "logger",
    "on_step",
    "on_epoch",
    "enable_graph",
    "add_dataloader_idx",
    "metric_attribute",
)


@contextmanager
def internals() -> Iterator[None]:
    """Warn, and go on, where Lightning is another than this file was written for."""
    try:
        yield
    except (AttributeError, TypeError, KeyError) as error:
        rank_zero_warn(
            f"This version of Lightning keeps its running values elsewhere ({error}): a run resumed in mid-epoch will"
            " not end with the same bits."
        )


def planned_epochs(trainer: Trainer) -> int | None:
    """Return how many epochs were asked for; averaging weights adds one to them, in which no step is made."""
    averaging = (one for one in trainer.callbacks if isinstance(one, StochasticWeightAveraging))  # type: ignore[attr-defined]
    epochs: int | None = next((one._max_epochs for one in averaging), trainer.max_epochs)
    return epochs


def forget_loaders(trainer: Trainer) -> None:
    """Let Lightning build its training loaders once more, and put them in their place.

    Those that it has built before it loads a checkpoint's loops, because a module asked how long the run is, keep
    their place at the beginning.
    """
    trainer.fit_loop._combined_loader = None


def loop_state(trainer: Trainer, pl_module: LightningModule) -> State:
    """Return what is underway in the training loop."""
    fit_loop, loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    epoch, batch = fit_loop.epoch_progress.current.state_dict(), loop.batch_progress.current.state_dict()
    fetcher = fit_loop._data_fetcher
    validates_next = fetcher is not None and loop._should_check_val_fx(fetcher)
    # The validation loop resets its metrics right after `on_validation_end`.
    done = {id(entry.value) for entry in loop.val_loop._results.values() if not entry.has_reset}
    gradients = pl_module.named_parameters() if fit_loop._should_accumulate() else []
    return {
        "epoch_ended": epoch["completed"] < epoch["processed"],
        "before_logging": batch["completed"] < batch["processed"],
        "before_validation": batch["completed"] < batch["processed"] and (validates_next or trainer.is_last_batch),
        "validates_next": validates_next,
        "metrics": {
            name: {**_metric_state(metric), "updates": metric.update_count}
            for name, metric in _metrics(pl_module)
            if id(metric) not in done
        },
        "results": [
            {
                "log": {
                    **{name: getattr(entry.meta, name) for name in _LOG_ARGUMENTS},
                    "sync_dist": entry.meta.sync.should,
                    "rank_zero_only": entry.meta.sync.rank_zero_only,
                },
                "reduction": _REDUCTIONS.index(entry.meta.reduce_fx),
                **_metric_state(entry),
            }
            for entry in loop._results.values()
            # A process group cannot be written to a file.
            if entry.update_called and not entry.has_reset and entry.meta.sync.group is None
        ],
        "gradients": {name: parameter.grad.cpu() for name, parameter in gradients if parameter.grad is not None},
    }


def restore_loop(trainer: Trainer, pl_module: LightningModule, state: State) -> None:
    """Bring the training loop where it was, in mid-epoch or behind the end of an epoch."""
    fit_loop, loop, connector = trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer._logger_connector
    for name, metric in _metrics(pl_module):
        if name in state["metrics"]:
            _set_metric_state(metric, state["metrics"][name], metric.device)
            metric._update_count = state["metrics"][name]["updates"]
    for entry in state["results"]:
        _restore_result(trainer, pl_module, entry)
    for name, gradient in state["gradients"].items():
        pl_module.get_parameter(name).grad = gradient.to(pl_module.device)
    if state["epoch_ended"]:
        _end_epoch(trainer)
        return
    fit_loop._restarting = False  # else ReduceLROnPlateau misses the end of this epoch
    connector._first_loop_iter = False  # else the first batch resets the values
    if state["before_logging"]:
        connector.update_train_step_metrics()
    if not trainer.is_last_batch:
        _replay(trainer, pl_module, state["draws"])
    elif not state["validates_next"]:
        # Lightning would train another batch, to get to a validation that this epoch does not have.
        fit_loop._data_fetcher.iterator = iter(())  # type: ignore[union-attr]
        loop._batches_that_stepped += 1


def _restore_result(trainer: Trainer, pl_module: LightningModule, entry: State) -> None:
    """Put a value back that `self.log` accumulates, the way that `self.log` makes it."""
    results, log = trainer.fit_loop.epoch_loop._results, entry["log"]
    is_metric = log["metric_attribute"] is not None and not entry["states"]
    value = pl_module.get_submodule(log["metric_attribute"]) if is_metric else torch.zeros((), device=pl_module.device)
    results.log(
        **log,
        value=value,
        reduce_fx=_REDUCTIONS[entry["reduction"]],
        sync_dist_fn=trainer.strategy.reduce,
        batch_size=1,
    )
    _set_metric_state(results[f"{log['fx']}.{log['name']}"], entry, pl_module.device)


def finish_batch(checkpoint: State) -> None:
    """Count a batch as done and its validation as begun in a checkpoint that was written in between.

    Lightning would go on behind the validation, and, from the last batch, behind the epoch's end.
    """
    loops = checkpoint["loops"]["fit_loop"]
    batches, validation = loops["epoch_loop.batch_progress"], loops["epoch_loop.val_loop.batch_progress"]
    for counts in (batches["total"], batches["current"]):
        counts["completed"] = counts["processed"]
    validation["current"] = dict.fromkeys(validation["current"], 0)
    for counts in (validation["total"], validation["current"]):
        counts["started"] = counts["ready"] = counts["ready"] + 1


def _end_epoch(trainer: Trainer) -> None:
    """Do what Lightning does at the end of an epoch behind the checkpoint, and leaves out on resuming."""
    fit_loop, loop, connector = trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer._logger_connector
    progress = fit_loop.epoch_progress
    processed = progress.current.state_dict()["processed"]
    connector.epoch_end_reached()
    progress.current.completed = processed - 1
    loop._batches_that_stepped -= 1
    loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
    connector.update_train_epoch_metrics()
    loop._batches_that_stepped += 1
    progress.current.completed, progress.total.completed = processed, progress.total.state_dict()["processed"]
    # From here it is a run like any other: Lightning draws the next epoch when it comes, not before training starts.
    fit_loop.on_iteration_done()
    loop.on_iteration_done()


def _replay(trainer: Trainer, pl_module: LightningModule, draws: list[State]) -> None:
    """Draw the epoch again in plain loaders, up to the batch that comes next."""
    fit_loop, fetcher = trainer.fit_loop, trainer.fit_loop._data_fetcher
    loaders = fit_loop._combined_loader.flattened  # type: ignore[union-attr]
    if any(isinstance(loader, _Stateful) for loader in loaders) or fetcher is None:
        return
    for loader in loaders:
        _set_sampler_epoch(loader, trainer.current_epoch)
    before_iterators, before_first_batch = draws
    set_random_state(before_iterators, pl_module.device)
    iter(fetcher)
    if trainer.current_epoch == 0:
        set_random_state(before_first_batch, pl_module.device)
    done = fit_loop.epoch_loop.batch_progress.current.state_dict()["processed"]
    for _ in range(done):
        next(fetcher)
    fetcher.fetched -= done  # Lightning adds it
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")


def _metrics(pl_module: LightningModule) -> list[tuple[str, Metric]]:
    for module in pl_module.modules():
        if isinstance(module, MetricCollection):
            module.values()  # brings the states of metrics up to date that share them with another
    return [(name, module) for name, module in pl_module.named_modules() if isinstance(module, Metric)]


def _metric_state(metric: Metric) -> State:
    states, last = (moved(value, torch.device("cpu")) for value in (metric.metric_state, metric._forward_cache))
    return {"states": states, "last": last}


def _set_metric_state(metric: Metric, state: State, device: torch.device) -> None:
    for name, value in state["states"].items():
        setattr(metric, name, moved(value, device))
    metric._forward_cache = moved(state["last"], device)


def moved(value: Any, device: torch.device) -> Any:
    """Return a tensor, or a list or dict of tensors, on a device."""
    if isinstance(value, Tensor):
        return value.detach().to(device)
    if isinstance(value, dict):
        return {name: moved(entry, device) for name, entry in value.items()}
    return [moved(entry, device) for entry in value] if isinstance(value, list | tuple) else value
