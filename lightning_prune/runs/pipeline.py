"""The stages of a run: a teacher if it needs one, the main training, the slim model's own, and their comparison."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig
from torch import nn

from lightning_prune.callbacks import Pruner
from lightning_prune.export import load_weights
from lightning_prune.options import needs_dense, needs_momentum, needs_teacher
from lightning_prune.reporting import BASELINE, Metric
from lightning_prune.runs.building import build_data
from lightning_prune.runs.comparison import Comparison
from lightning_prune.runs.configurations import folder_of
from lightning_prune.runs.end_models import end_models
from lightning_prune.runs.example_inputs import Inputs, example_inputs, take_example
from lightning_prune.runs.exporting import AUTO, chosen_format, export_last_model
from lightning_prune.runs.finetuning import affordable_epochs, save_momentum, start_finetuning
from lightning_prune.runs.lengthening import begin_lengthened
from lightning_prune.runs.messages import first_line, in_epochs, one_line, say
from lightning_prune.runs.modules import build_module, build_options, build_strategy, build_teacher, network_of
from lightning_prune.runs.monitoring import run_metric
from lightning_prune.runs.run_checks import check_network, check_options, check_stages, check_strategy
from lightning_prune.runs.stages import VERSION, finetuning_stage, main_stage, set_epochs
from lightning_prune.runs.trained_once import baseline_kind, baseline_weights, load_teacher, teacher_weights
from lightning_prune.runs.training import trained
from lightning_prune.slimming import save_slim

NAMES = {None: "fine-tuned", "epochs": "scratch-E", "compute": "scratch-B"}
"""What the end table calls the slim model after its own training, by what a control has in common with the run."""


@dataclass(frozen=True, eq=False)
class RunParts:
    """What the stages of a run are made of, before anything is trained.

    Attributes:
        data: For all stages.
        example: What the module's `forward` takes, `(2, ...)` each; None where it does not take tensors.
        metric: By which models are judged.
        baseline: What they are compared with: `train`, `weights` or `none`.
        teacher: A network without its weights; None without one.
        callbacks: Of the main stage, by name.
        finetuning: The configuration of the last stage; None if there is none.
        finetuning_teacher: The teacher of that stage: the same, or a network for this run's dense weights.
        finetuning_callbacks: Of that stage, by name.
        format: Of the last model as a file; None for no file.
    """

    data: LightningDataModule
    example: Inputs | None
    metric: Metric
    baseline: str
    teacher: nn.Module | None
    callbacks: Mapping[str, Callback]
    finetuning: DictConfig | None
    finetuning_teacher: nn.Module | None
    finetuning_callbacks: Mapping[str, Callback]
    format: str | None

    @property
    def pruners(self) -> list[Pruner]:
        """Those of the main stage that prune."""
        return [callback for callback in self.callbacks.values() if isinstance(callback, Pruner)]

    def module(self, cfg: DictConfig, model: str = "model") -> LightningModule:
        """Build what a stage trains, with an example of what it takes.

        Args:
            cfg: The configuration of the stage.
            model: The key of its network.
        """
        module = build_module(cfg, self.data, model=model)
        take_example(module, self.example)
        return module


def run_stages(cfg: DictConfig) -> None:
    """Run each stage from its last checkpoint on, then compare the models that they end with."""
    with one_line():
        parts = checked_run_parts(cfg)
    begin_lengthened(cfg)
    comparison = Comparison(cfg, parts.data, parts.metric, parts.example)
    is_first = train_main_stage(cfg, parts, comparison)
    if parts.finetuning is not None:
        if parts.finetuning_teacher is not parts.teacher:
            load_teacher(parts.finetuning_teacher, folder_of(cfg).dense, parts.data)
        finetune(cfg, parts.finetuning, parts, comparison)
    if is_first:
        export_and_report(cfg, parts, comparison)


def checked_run_parts(cfg: DictConfig) -> RunParts:
    """Build all parts of a run and refuse those that do not go together."""
    check_options(cfg)
    data = build_data(cfg)
    module = build_module(cfg, data)
    metric, example = run_metric(cfg, module, data), example_inputs(module, data)
    check_network(module, example)
    teacher = build_teacher(cfg, data, "teacher.model") if needs_teacher(cfg) else None
    own_teacher = build_teacher(cfg, data, "model") if needs_dense(cfg) else teacher
    callbacks = build_strategy(cfg, teacher)
    finetuning = finetuning_stage(cfg) if cfg.finetune else None
    last = build_strategy(finetuning, own_teacher) if finetuning is not None else {}
    baseline = baseline_kind(cfg, callbacks.values())
    # Of a module that takes no tensors there is no file to choose.
    export = None if example is None and cfg.export == AUTO else cfg.export
    format = chosen_format(export, (callbacks if finetuning is None else last).values())
    parts = RunParts(data, example, metric, baseline, teacher, callbacks, finetuning, own_teacher, last, format)
    check_stages(cfg, parts.pruners)
    check_strategy(partial(parts.module, cfg), callbacks.values())
    if finetuning is not None:
        check_strategy(partial(parts.module, finetuning), last.values())
        parts.module(finetuning)
    return parts


def train_main_stage(cfg: DictConfig, parts: RunParts, comparison: Comparison) -> bool:
    """Train the main stage, and return whether this is the process that reports on it."""
    weights = teacher_weights(cfg, parts.data) if parts.teacher is not None else None
    with one_line():
        load_teacher(parts.teacher, weights, parts.data)
        own = main_stage(cfg)
        module = parts.module(own)
        if cfg.weights:
            load_weights(network_of(module), cfg.weights)
    with trained(own, module, parts.data, parts.callbacks.values()) as trainer:
        # Once more, since what a teacher knows of the batches it has seen may have changed.
        load_teacher(parts.teacher, weights, parts.data)
        baseline = baseline_weights(cfg, parts.data, parts.baseline)
        if trainer.is_global_zero:
            add_references(cfg, parts, comparison, trainer, {"teacher": weights, BASELINE: baseline})
            comparison.add(save_end_models(cfg, module, parts), trainer)
        trainer.strategy.barrier()
    return trainer.is_global_zero


def add_references(
    cfg: DictConfig, parts: RunParts, comparison: Comparison, trainer: Trainer, weights: Mapping[str, Path | None]
) -> None:
    """Compare with the run's teacher and its baseline, which is also told if nobody has trained it.

    Args:
        cfg: The configuration of the run.
        parts: Its parts.
        comparison: Takes them.
        trainer: Whose loggers are told.
        weights: Of the two, by name; if they are the same, the baseline is the teacher.
    """
    keys = {"teacher": "teacher.model", BASELINE: "model"}
    found = {name: path for name, path in weights.items() if path is not None}
    if len(set(found.values())) < len(found):
        found = {BASELINE: found[BASELINE]}
    for name, path in found.items():
        module = parts.module(cfg, keys[name])
        load_weights(network_of(module), path)
        comparison.add({name: module}, trainer)
    if BASELINE not in found and parts.callbacks:
        comparison.add_untested(BASELINE, parts.module(cfg))


def save_end_models(cfg: DictConfig, module: LightningModule, parts: RunParts) -> dict[str, LightningModule]:
    """Return the models that the main stage ends with, by name, and write what they are and what the next one needs."""
    folder = folder_of(cfg)
    ends = end_models(module, parts.pruners, parts.example)
    if "slim" in ends.models:
        save_slim(ends.models["slim"], folder.slim, kept=ends.kept, build=build_options(cfg, parts.data))
    elif "quantized" in ends.models:
        save_slim(module, folder.quantized, build=build_options(cfg, parts.data))
    if needs_dense(cfg):
        torch.save(ends.dense, folder.dense)
    if needs_momentum(cfg) and folder.saved_checkpoint is not None:
        save_momentum(folder, module, ends.kept)
    return ends.models


def finetune(cfg: DictConfig, own: DictConfig, parts: RunParts, comparison: Comparison) -> None:
    """Train the slim model of a run on, or its control from random weights, by the configuration of its own stage."""
    folder, data, scratch = folder_of(cfg), parts.data, cfg.finetune.get("from_scratch")
    build_dense = partial(parts.module, own)
    with one_line():
        if scratch == "compute" and parts.example is not None:
            options = cfg.finetune
            set_epochs(own, affordable_epochs(build_dense, folder, parts.example, options.epochs, options.longest))
        module, held = start_finetuning(
            build_dense, folder, scratch=scratch is not None, momentum=folder.momentum.is_file()
        )
    name, weights = NAMES[scratch], " from random weights" if scratch else ""
    say(f"{name[0].upper()}{name[1:]}: the slim model, {in_epochs(own.trainer.max_epochs)}{weights}")
    with trained(own, module, data, [*parts.finetuning_callbacks.values(), *held]) as trainer:
        if trainer.is_global_zero:
            save_slim(module, folder.finetuned, build=build_options(own, data))
            comparison.add({name: module}, trainer)


def export_and_report(cfg: DictConfig, parts: RunParts, comparison: Comparison) -> None:
    """Write the last model as a file for other programs, and report on all models."""
    folder, problem = folder_of(cfg), None
    if parts.format is not None:
        try:
            export_last_model(comparison, folder, parts.example, parts.format)
        except Exception as error:  # whatever it is, the run keeps its results
            problem = first_line(error)
    rows = comparison.rows(cfg.latency_batch_size)
    comparison.report(folder, rows, parts.callbacks, summary_of_options(cfg))
    if problem is not None:
        print(f"Not exported as {parts.format}: {problem}", file=sys.stderr)


def summary_of_options(cfg: DictConfig) -> dict[str, Any]:
    """Return what the summary says of a run's configuration."""
    folder = folder_of(cfg)
    return {
        "strategy": list(cfg.strategy),
        "sparsity": cfg.sparsity,
        "seed": cfg.seed,
        "overrides": list(cfg.overrides),
        "tags": list(cfg.tags),
        "run_id": cfg.run_id,
        "checkpoint": os.path.relpath(folder.saved_checkpoint or folder.path, folder.path),
        "versions": {"lightning_prune": VERSION, "torch": torch.__version__},
    }
