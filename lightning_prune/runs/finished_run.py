"""What a run ended with, read again from its folder."""

import logging
import pkgutil
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from lightning_prune.callbacks import QuantizationAwareTraining
from lightning_prune.data import InMemoryImages
from lightning_prune.export import load_weights
from lightning_prune.models import ImageClassifier
from lightning_prune.options import register_resolvers
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.building import build, build_network
from lightning_prune.runs.configurations import read_configuration, refuse_gone
from lightning_prune.slimming import load_slim


class FinishedRun(NamedTuple):
    """What a run ended with."""

    module: ImageClassifier
    data: InMemoryImages
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
    register_resolvers()
    folder = RunFolder(path)
    cfg = read_configuration(folder)
    for options in (cfg.data, cfg.model):
        refuse_gone(options, folder, "run it again")
    data: InMemoryImages = build(cfg, "data")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    network = build_network(cfg, "model", data)
    module = ImageClassifier(network, data.num_classes)
    module.example_input_array = data.example_input(2)
    dense_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    file = next((file for file in (folder.finetuned, folder.slim, folder.quantized) if file.is_file()), None)
    if file is None:
        load_weights(module.network, path)
        return FinishedRun(module.eval(), data, folder.checkpoints, list(cfg.strategy), dense_bytes)
    stage = "finetune.strategy" if file == folder.finetuned else "strategy"
    # It is float until the next lines, which needs no warning.
    logging.getLogger("lightning_prune.slimming.slim_files").setLevel(logging.ERROR)
    module = load_slim(module, file).eval()
    state = torch.load(file, map_location="cpu", weights_only=True).get("quantization")
    if state is not None:
        _quantizing_callback(cfg, stage, folder).restore(module, state)
    return FinishedRun(module.eval(), data, file, list(OmegaConf.select(cfg, stage)), dense_bytes)


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
