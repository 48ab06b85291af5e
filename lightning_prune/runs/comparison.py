"""The models of a run side by side: what they get right on the test set, and what they cost."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from rich.console import Console
from torch import Tensor

from lightning_prune.callbacks import Pruner
from lightning_prune.graph import suspended
from lightning_prune.reporting import (
    EndTable,
    Json,
    Metric,
    Row,
    RunFolder,
    in_words,
    plot_curves,
    profile_all,
    write_summary,
)
from lightning_prune.training import OrderedCallback

METRIC = Metric("accuracy", "max")


class OpenedFile(LightningModule):
    """A network in a file that was opened again.

    Args:
        compute: Maps images `(n, channels, h, w)` to logits `(n, num_classes)`, on the CPU.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(n, num_classes)` of images `(n, channels, h, w)`."""
        return self.compute(x)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return logits `(n, num_classes)` and labels `(n,)`."""
        images, labels = batch
        return self(images), labels


class Comparison:
    """Test models when they are there, and measure all of them together at the end, so that their latencies compare.

    Args:
        data: Predicted is what its `predict_dataloader` gives; a module's `predict_step` returns logits and labels.
        accelerator: What predicts, as the Trainer takes it; costs are measured on the CPU.
        precision: In which it does.
    """

    def __init__(self, data: LightningDataModule, accelerator: str, precision: Any) -> None:
        self._data, self._accelerator, self._precision = data, accelerator, precision
        self.models: dict[str, LightningModule] = {}
        self.classes: dict[str, Tensor] = {}
        """The predicted class of every test image, `(n,)`, by model."""
        self._accuracies: dict[str, float] = {}
        self._files: dict[str, int] = {}

    def add(self, models: Mapping[str, LightningModule], trainer: Trainer) -> None:
        """Test models by name, and tell the loggers of a trainer."""
        for name, model in models.items():
            self._add(name, model, self._accelerator, self._precision)
        results = {f"test/accuracy_{name}": self._accuracies[name] for name in models}
        for logger in trainer.loggers:
            logger.log_metrics(results, step=trainer.global_step)

    def add_file(self, name: str, file: Path, compute: Callable[[Tensor], Tensor]) -> None:
        """Test what was opened of the last model's file, from images `(n, channels, h, w)` to logits, on the CPU.

        Its accuracy, latency and bytes are measured; parameters, non-zeros and MACs will be that model's.
        """
        self._add(name, OpenedFile(compute), "cpu", "32-true")
        self._files[name] = file.stat().st_size

    def rows(self, example_input: Tensor) -> list[Row]:
        """Return what is known of all models, in the order in which they came.

        Args:
            example_input: The batch whose latency is measured, `(n, channels, h, w)`, on the CPU.
        """
        with suspended():  # a rounded number takes as much space as another, and more time, before it is exported
            profiles = profile_all([model.cpu() for model in self.models.values()], example_input)
        for number, name in enumerate(self.models):
            if name in self._files:
                own = profiles[number]
                profiles[number] = replace(
                    profiles[number - 1],
                    bytes=self._files[name],
                    latency_ms=own.latency_ms,
                    latency_low_ms=own.latency_low_ms,
                    latency_high_ms=own.latency_high_ms,
                )
        examples = [len(classes) for classes in self.classes.values()]
        entries = zip(self.models, self._accuracies.values(), profiles, examples, strict=True)
        return [Row(*entry) for entry in entries]

    def report(
        self, folder: RunFolder, rows: Sequence[Row], strategy: Mapping[str, Callback], extra: Mapping[str, Json]
    ) -> None:
        """Write `summary.json` and `curves.png` into a run's folder, and print the table of its models.

        Args:
            folder: With the logged curves of the training that pruned.
            rows: See `rows`.
            strategy: The callbacks of that training, by name.
            extra: What the summary says besides; see `write_summary`.
        """
        equal = torch.equal(self.classes["masked"], self.classes["slim"]) if "slim" in self.classes else None
        trained = next(self.models[name] for name in ("masked", "quantized", "dense") if name in self.models)
        own = {name: callback for name, callback in strategy.items() if isinstance(callback, OrderedCallback)}
        reports = {name: text for name, callback in own.items() if (text := callback.report(trained))}
        results = {"predictions_equal": equal, "pruning": reports}
        write_summary(folder.summary, rows, METRIC, {**extra, **results})
        final_epochs = [pruner.final_epoch for pruner in strategy.values() if isinstance(pruner, Pruner)]
        plot_curves(
            folder.path, rows, METRIC, hard_from_epoch=max((e for e in final_epochs if e is not None), default=None)
        )
        console = Console()
        console.print(EndTable(rows, METRIC))
        files = sorted(path.name for path in folder.path.iterdir() if not path.name.startswith("."))
        lines = [f"{name}: {in_words(text)}" for name, text in reports.items()]
        for line in [*lines, f"In {os.path.relpath(folder.path)}: {', '.join(files)}"]:
            console.print(f"\n{line}", markup=False, highlight=False, soft_wrap=True)

    def _add(self, name: str, model: LightningModule, accelerator: str, precision: Any) -> None:
        self.classes[name], labels = self._predict(model, accelerator, precision)
        self._accuracies[name] = float((self.classes[name] == labels).double().mean())
        self.models[name] = model

    def _predict(self, model: LightningModule, accelerator: str, precision: Any) -> tuple[Tensor, Tensor]:
        """Return the predicted and the true classes of all test images, on one device and with no logger."""
        tester = Trainer(
            accelerator=accelerator,
            devices=1,
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        batches: Any = tester.predict(model, datamodule=self._data)
        logits, labels = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
        return logits.argmax(dim=1), labels
