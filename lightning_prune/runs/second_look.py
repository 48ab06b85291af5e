"""The models of a finished run measured once more, from the files in its folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from lightning.pytorch import LightningModule
from omegaconf import DictConfig, OmegaConf

from lightning_prune.errors import InputError
from lightning_prune.export import EXPORT_FORMATS, load_weights, open_network
from lightning_prune.reporting import BASELINE, EXPORTED, Metric, Row, RunFolder
from lightning_prune.runs.building import build_data
from lightning_prune.runs.comparison import Comparison
from lightning_prune.runs.example_inputs import take_example
from lightning_prune.runs.finished_run import dense_module, finished_configuration, module_in_file
from lightning_prune.runs.messages import first_line, quiet_libraries, say
from lightning_prune.runs.modules import build_module, network_of
from lightning_prune.runs.monitoring import run_metric
from lightning_prune.runs.pipeline import NAMES
from lightning_prune.runs.stages import baseline_stage


def measured_again(path: Path, *, samples: int | None, threads: int | None) -> tuple[list[Row], Metric]:
    """Return what is known of the models of a run: its baseline if that is kept, and those in its folder.

    Args:
        path: The folder.
        samples: In the batch whose latency is measured; None for as many as the run has measured with.
        threads: Of the CPU; None for as many as the run has had.

    Raises:
        InputError: If it is not the folder of a run that has trained.
    """
    quiet_libraries()
    cfg, folder = finished_configuration(path), RunFolder(path)
    if folder.saved_checkpoint is None:
        raise InputError(f"expected a run with a checkpoint, got {path}; go on with it by resume={path}")
    count = threads or cfg.threads
    if count is not None:
        torch.set_num_threads(count)
    data = build_data(cfg)
    module, example = dense_module(cfg, data)
    comparison = Comparison(cfg, data, run_metric(cfg, module, data), example)

    def build() -> LightningModule:
        dense = build_module(cfg, data)
        take_example(dense, example)
        return dense

    for name, model in _models(cfg, folder, build):
        comparison.add({name: model})
    for format, one in EXPORT_FORMATS.items():
        file = folder.path / one.file
        if file.is_file() and example is not None:
            try:
                comparison.add_file(EXPORTED, file, open_network(file, format, comparison.last))
                break
            except Exception as error:  # of a file that is not of the last model, or whose package is missing
                say(f"Not measured: {file.name}, {first_line(error)}")
    return comparison.rows(samples or cfg.latency_batch_size), comparison.metric


def _models(
    cfg: DictConfig, folder: RunFolder, build: Callable[[], LightningModule]
) -> Iterator[tuple[str, LightningModule]]:
    """Yield the models of a run, by their names in its table; each begins as a dense one with random weights."""
    baseline = Path(baseline_stage(cfg).run_folder)
    if cfg.strategy and baseline.is_dir():
        yield BASELINE, _with_weights(build(), baseline)
    if folder.quantized.is_file():
        yield "quantized", module_in_file(build(), folder.quantized, cfg, "strategy")
    else:
        yield ("masked" if folder.slim.is_file() else "trained"), _with_weights(build(), folder.path)
    if folder.slim.is_file():
        yield "slim", module_in_file(build(), folder.slim, cfg, "strategy")
    if folder.finetuned.is_file():
        name = NAMES[OmegaConf.select(cfg, "finetune.from_scratch")]
        yield name, module_in_file(build(), folder.finetuned, cfg, "finetune.strategy")


def _with_weights(module: LightningModule, folder: Path) -> LightningModule:
    load_weights(network_of(module), folder)
    return module.eval()
