"""What a run ended with, read again from its folder."""

import logging
import pkgutil
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks import QuantizationAwareTraining
from lightning_prune.export import load_weights
from lightning_prune.options import register_resolvers
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.building import build, build_data
from lightning_prune.runs.configurations import read_configuration, refuse_gone
from lightning_prune.runs.example_inputs import Inputs, example_inputs, take_example
from lightning_prune.runs.modules import build_module, network_of
from lightning_prune.slimming import load_slim


class FinishedRun(NamedTuple):
    """What a run ended with."""

    module: LightningModule
    data: LightningDataModule
    example: Inputs | None
    """What the module's `forward` takes, `(2, ...)` each; None where it does not take tensors."""
    file: Path
    strategy: list[str]
    dense_bytes: int
    """Of the numbers that the dense network holds, as it was built."""


def finished_run(path: Path) -> FinishedRun:
    """Return the network that a run ended with, quantized if it was trained so, and its data.

    Args:
        path: The run's folder.

    Raises:
        InputError: If the folder is not that of a run that has ended, or that of an older version with other names.
    """
    cfg = finished_configuration(path)
    folder, data = RunFolder(path), build_data(cfg)
    module, example = dense_module(cfg, data)
    dense_bytes = sum(tensor.nbytes for tensor in network_of(module).state_dict().values())
    file = next((file for file in (folder.finetuned, folder.slim, folder.quantized) if file.is_file()), None)
    if file is None:
        load_weights(network_of(module), path)
        return FinishedRun(module.eval(), data, example, folder.checkpoints, list(cfg.strategy), dense_bytes)
    stage = "finetune.strategy" if file == folder.finetuned else "strategy"
    module = module_in_file(module, file, cfg, stage)
    return FinishedRun(module, data, example, file, list(OmegaConf.select(cfg, stage)), dense_bytes)


def finished_configuration(path: Path) -> DictConfig:
    """Return the configuration of a run, whose data, network and module can still be built.

    Raises:
        InputError: If the folder is not that of a run, or that of an older version with other names.
    """
    register_resolvers()
    folder = RunFolder(path)
    cfg = read_configuration(folder)
    for key in ("data", "model", "module"):
        if key in cfg:
            refuse_gone(cfg[key], folder, "run it again")
    if "module" not in cfg:  # of a run before there was a choice
        cfg.module = {"_target_": "lightning_prune.models.classifier.ImageClassifier"}
        cfg.monitor, cfg.mode = "val/accuracy", None
    if cfg.model.get("pretrained"):
        cfg.model.pretrained = False  # the weights come from the run
    return cfg


def dense_module(cfg: DictConfig, data: LightningDataModule) -> tuple[LightningModule, Inputs | None]:
    """Return the module of a run with random weights, and an example of what it takes."""
    module = build_module(cfg, data)
    example = example_inputs(module, data)
    take_example(module, example)
    return module, example


def module_in_file(module: LightningModule, file: Path, cfg: DictConfig, stage: str) -> LightningModule:
    """Return the module of a slim or quantized network in a run's file.

    Args:
        module: The dense one with random weights, which is changed.
        file: Written by `save_slim`.
        cfg: Of the run.
        stage: The key of the strategies that it was trained with last.
    """
    # It is float until the next lines, which needs no warning.
    logging.getLogger("lightning_prune.slimming.slim_files").setLevel(logging.ERROR)
    module = load_slim(module, file).eval()
    state = torch.load(file, map_location="cpu", weights_only=True).get("quantization")
    if state is not None:
        _quantizing_callback(cfg, stage, RunFolder(file.parent)).restore(module, state)
    return module.eval()


def _quantizing_callback(cfg: DictConfig, stage: str, folder: RunFolder) -> QuantizationAwareTraining:
    """Return the callback by which a stage trained with rounded numbers, as its key of the configuration says."""
    strategy = OmegaConf.select(cfg, stage)
    refuse_gone(strategy, folder, "run it again")
    targets = {name: pkgutil.resolve_name(options["_target_"]) for name, options in strategy.items()}
    name = next(
        name
        for name, target in targets.items()
        if isinstance(target, type) and issubclass(target, QuantizationAwareTraining)
    )
    callback: QuantizationAwareTraining = build(cfg, f"{stage}.{name}")
    return callback
