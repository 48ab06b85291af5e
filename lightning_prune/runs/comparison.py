"""The models of a run side by side: how good they are on the test set, and what they cost."""

import copy
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from lightning_prune.callbacks import Pruner
from lightning_prune.graph import suspended
from lightning_prune.reporting import (
    EndTable,
    Json,
    LayerTable,
    Metric,
    Row,
    RunFolder,
    in_words,
    layer_counts,
    plot_curves,
    profile_all,
    write_layers,
    write_summary,
)
from lightning_prune.runs.evaluation import Evaluation, evaluate
from lightning_prune.runs.example_inputs import Inputs, resized
from lightning_prune.runs.messages import first_line, say
from lightning_prune.training import OrderedCallback


@dataclass(frozen=True, eq=False)
class _Compared:
    """A model, how good it is, the size of its file if it was opened again, and whether anybody has trained it."""

    model: LightningModule
    found: Evaluation
    file_bytes: int | None = None
    trained: bool = True


class Comparison:
    """Test each model once when it is there, and measure all of them together, so that their latencies compare.

    Args:
        cfg: The configuration of the run: what tests, in which precision; costs are measured on the CPU.
        data: What models are tested on.
        metric: By which they are judged.
        example: What their `forward` takes, `(n, ...)` each; None where it does not take tensors.
    """

    def __init__(self, cfg: DictConfig, data: LightningDataModule, metric: Metric, example: Inputs | None) -> None:
        self._cfg, self._data, self.metric, self._example = cfg, data, metric, example
        self._compared: dict[str, _Compared] = {}

    @property
    def last(self) -> LightningModule:
        """The model that came last, a file aside."""
        return [one.model for one in self._compared.values() if one.file_bytes is None][-1]

    def add(self, models: Mapping[str, LightningModule], trainer: Trainer | None = None) -> None:
        """Test models by name, and tell the loggers of a trainer, if there is one."""
        for name, model in models.items():
            self._compared[name] = _Compared(model, evaluate(model, self._data, self._cfg, self.metric))
        if trainer is not None:
            self._log({name: self._compared[name].found for name in models}, trainer.loggers, trainer.global_step)

    def add_untested(self, name: str, model: LightningModule) -> None:
        """Take a model along that nobody has trained, so that nothing but its costs is told."""
        self._compared[name] = _Compared(model, Evaluation(math.nan, {}, None), trained=False)

    def add_file(self, name: str, file: Path, compute: Callable[[Tensor], Tensor]) -> None:
        """Test what was opened of the last model's file, which takes tensors of any shape, in that model's place.

        Its score, latency and bytes are measured; parameters, non-zeros and MACs will be that model's. A module that
        does not call its `forward` when it is tested cannot tell how good a file is.
        """
        opened = copy.copy(self.last)
        vars(opened)["forward"] = compute
        untold = Evaluation(math.nan, {}, None)
        try:
            found = evaluate(opened, self._data, self._cfg, self.metric, accelerator="cpu")
        except Exception as error:  # of a module that calls its `forward` in another way than the file can be called
            found = untold
            say(f"Not tested: {file.name}, {first_line(error)}")
        self._compared[name] = _Compared(opened, found if found.calls else untold, file.stat().st_size)

    def rows(self, samples: int) -> list[Row]:
        """Return what is known of all models, in the order in which they came.

        Args:
            samples: In the batch whose latency is measured.
        """
        example = None if self._example is None else resized(self._example, samples)
        entries = list(self._compared.items())
        with suspended():  # a rounded number takes as much space as another, and more time, before it is exported
            profiles = profile_all([one.model.cpu() for _, one in entries], example)
        for number, (_, one) in enumerate(entries):
            if one.file_bytes is not None:
                of_network = profiles[number - 1]
                latency = {key: value for key, value in vars(profiles[number]).items() if key.startswith("latency_")}
                profiles[number] = replace(of_network, bytes=one.file_bytes, **latency)
            if not one.trained:
                profiles[number] = replace(profiles[number], nonzeros=math.nan)
        return [
            Row(name, one.found.score, profile, self._examples(one.found))
            for (name, one), profile in zip(entries, profiles, strict=True)
        ]

    def report(
        self, folder: RunFolder, rows: Sequence[Row], strategy: Mapping[str, Callback], extra: Mapping[str, Json]
    ) -> None:
        """Write `summary.json`, `layers.csv` and `curves.png` into a run's folder, and print the tables of its models.

        Args:
            folder: With the logged curves of the training that pruned.
            rows: See `rows`.
            strategy: The callbacks of that training, by name.
            extra: What the summary says besides; see `write_summary`.
        """
        masked, slim = (self._classes(name) for name in ("masked", "slim"))
        equal = torch.equal(masked, slim) if masked is not None and slim is not None else None
        trained = next(self._compared[name].model for name in ENDS if name in self._compared)
        own = {name: callback for name, callback in strategy.items() if isinstance(callback, OrderedCallback)}
        reports = {name: text for name, callback in own.items() if (text := callback.report(trained))}
        results = {"predictions_equal": equal, "pruning": reports}
        write_summary(folder.summary, rows, self.metric, {**extra, **results})
        if folder.metrics:
            epochs = [pruner.final_epoch for pruner in strategy.values() if isinstance(pruner, Pruner)]
            final = max((epoch for epoch in epochs if epoch is not None), default=None)
            plot_curves(folder.path, rows, self.metric, hard_from_epoch=final)
        print_report(folder, rows, self.metric, reports, self._layers(folder))
        self._say_unlogged()

    def _layers(self, folder: RunFolder) -> LayerTable | None:
        """Write what is left of each layer, and return it as a table, of a run that has pruned."""
        if "masked" not in self._compared:
            return None
        slim = self._compared["slim"].model if "slim" in self._compared else None
        layers = layer_counts(self._compared["masked"].model, slim, self._example)
        write_layers(folder.layers, layers)
        return LayerTable(layers)

    def _say_unlogged(self) -> None:
        """Say what could be asked for, where the metric that was asked for is nowhere."""
        tested = [one.found for one in self._compared.values() if one.found.logged]
        if tested and all(math.isnan(found.score) for found in tested):
            names = ", ".join(sorted(tested[0].logged))
            print(f"\nNo score: monitor={self._cfg.monitor or 'null'}; the module logs {names} when it is tested")

    def _classes(self, name: str) -> Tensor | None:
        return self._compared[name].found.classes if name in self._compared else None

    def _examples(self, found: Evaluation) -> int | None:
        """Return of how many examples a score is a share."""
        return len(found.classes) if self.metric.is_share and found.classes is not None else None

    def _log(self, found: Mapping[str, Evaluation], loggers: Sequence[Logger], step: int) -> None:
        name = f"{self.metric.split}/{self.metric.name}"
        results = {f"{name}_{model}": one.score for model, one in found.items() if not math.isnan(one.score)}
        for logger in loggers:
            logger.log_metrics(results, step=step)
            logger.save()


ENDS = ("masked", "quantized", "trained")
"""What the model is called that a strategy has worked on, or nothing has."""


def print_report(
    folder: RunFolder,
    rows: Sequence[Row],
    metric: Metric,
    reports: Mapping[str, Mapping[str, Json]],
    layers: LayerTable | None = None,
) -> None:
    """Print the tables of a run, what its strategies tell, and which files it has left.

    Args:
        folder: The run's.
        rows: Its models.
        metric: By which they are judged.
        reports: By strategy.
        layers: What is left of each layer, if that is told.
    """
    console = Console()
    console.print(EndTable(rows, metric))
    if layers is not None:
        console.print("", layers)
    files = sorted(path.name for path in folder.path.iterdir() if not path.name.startswith("."))
    lines = [f"{name}: {in_words(text)}" for name, text in reports.items()]
    for line in [*lines, f"In {os.path.relpath(folder.path)}: {', '.join(files)}"]:
        console.print(f"\n{line}", markup=False, highlight=False, soft_wrap=True)
