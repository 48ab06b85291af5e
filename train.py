"""Train a network, make it small while it trains, and measure what is left: `python train.py --help`."""

import copy
import logging
import netrc
import os
import re
import secrets
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.experimental.callback import Callback as HydraCallback
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from lightning_prune import SparsityMonitor, __version__, save_slim, slim
from lightning_prune.callbacks.best_pruned_checkpoint import BestPrunedCheckpoint
from lightning_prune.callbacks.exact_resume import ExactResume
from lightning_prune.callbacks.pruner import Pruner
from lightning_prune.data.in_memory import InMemoryImages
from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.profiling import profile_all
from lightning_prune.report import EndTable, Row, in_words, plot_curves, write_summary
from lightning_prune.sweeps import sweep_report

LAST = Path("checkpoints/last.ckpt")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Run one job; what a person got wrong ends it with one line, and in a sweep does not end the others."""
    try:
        with one_line():
            cfg = settled(cfg)
        run(cfg)
    except CompactHydraException as error:
        if HydraConfig.get().mode == RunMode.RUN:
            raise
        print(f"Job {HydraConfig.get().job.num}: {error}", file=sys.stderr)


@contextmanager
def one_line(trainer: Trainer | None = None) -> Iterator[None]:
    """Turn what goes wrong into one line: all of it before training, and mistakes of a person always.

    Before the first step an error is about what was typed; HYDRA_FULL_ERROR=1 shows where it came from.
    """
    start = trainer.global_step if trainer else 0
    try:
        yield
    except CompactHydraException as error:
        if isinstance(error, InstantiationException) and error.__cause__ is not None:
            key = str(error).rpartition("full_key: ")[2]
            raise CompactHydraException(f"Error in {key}: {first_line(error.__cause__)}") from error
        raise
    except Exception as error:
        if isinstance(error, InputError) or trainer is None or trainer.global_step == start:
            raise CompactHydraException(f"Error: {first_line(error)}") from error
        raise


def first_line(error: BaseException) -> str:
    """Return what an error says in one line, with its type unless it is a person's mistake."""
    text = " ".join(str(error).split())
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def settled(cfg: DictConfig) -> DictConfig:
    """Return the configuration of this run, which is that of the resumed run if there is one, and keep it in a file."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    file = folder / "config.yaml"
    if cfg.resume:
        extra = [override for override in hydra_config.overrides.task if not override.startswith("resume=")]
        if extra:
            raise InputError(
                f"expected nothing beside resume={cfg.resume}, got {' '.join(extra)}; a run is resumed as it was"
            )
        cfg = OmegaConf.load(file)  # type: ignore[assignment]
    elif os.environ.get("LOCAL_RANK", "0") != "0":
        return OmegaConf.load(file)  # type: ignore[return-value]  # another process of a run that the first has begun
    elif file.exists():
        raise InputError(
            f"expected a new folder for a new run, got {os.path.relpath(folder)}, which holds one; go on with it by "
            "resume=FOLDER, or choose another"
        )
    else:
        refuse_unread(cfg, hydra_config.overrides.task)
        cfg.run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        cfg.overrides = list(hydra_config.overrides.task)
        cfg.sweep = Path(hydra_config.sweep.dir).as_posix() if hydra_config.mode == RunMode.MULTIRUN else None
        if cfg.data.get("path"):
            cfg.data.path = str(Path(cfg.data.path).absolute())
    cfg.run_folder = str(folder)
    OmegaConf.save(cfg, file)
    return cfg


def refuse_unread(cfg: DictConfig, overrides: Iterable[str]) -> None:
    """Refuse options that no chosen strategy reads, and several of a group in which the last would win."""
    strategies = str(OmegaConf.to_container(cfg.strategy, resolve=False))
    for key, default in {"granularity": None, "criterion": None, "schedule": None, "scope": "layer"}.items():
        several = [typed for typed in overrides if typed.startswith(f"{key}=[") and "," in typed]
        if several:
            raise InputError(f"expected one {key}, got {several[0]}; choose one of them")
        if cfg[key] != default and not re.search(rf"\$\{{{key}\b", strategies):
            raise InputError(
                f"expected a strategy that takes a {key}, got strategy=[{','.join(cfg.strategy) or 'none'}]; "
                f"leave {key} out, or use strategy=gmp"
            )


def run(cfg: DictConfig) -> None:
    """Train by a configuration, then compare the dense, the masked and the slim model."""
    hush()
    folder = Path(cfg.run_folder)
    with one_line():
        if not isinstance(cfg.latency_batch_size, int) or cfg.latency_batch_size < 1:
            raise InputError(f"expected latency_batch_size to be at least 1, got {cfg.latency_batch_size}")
        if cfg.threads is not None:
            torch.set_num_threads(cfg.threads)
        seed_everything(cfg.seed, workers=True, verbose=False)
        strategy = {name: instantiate(options) for name, options in cfg.strategy.items()}
        pruners = {name: callback for name, callback in strategy.items() if isinstance(callback, Pruner)}
        data: InMemoryImages = instantiate(cfg.data)
        network = instantiate(cfg.model, num_classes=data.num_classes, in_channels=data.in_channels)
        module = ImageClassifier(network, data.num_classes, instantiate(cfg.optimizer), instantiate(cfg.scheduler))
        module.example_input_array = data.example_input(2)
        checkpoint = folder / LAST if (folder / LAST).is_file() else None
        if checkpoint is not None:
            check_fits(module, checkpoint)
        best = BestPrunedCheckpoint(
            folder / LAST.parent, "best", monitor="val/accuracy", mode="max", enable_version_counter=False
        )
        last = ModelCheckpoint(folder / LAST.parent, LAST.stem, enable_version_counter=False)
        saving = [best, last, *every_n_steps(folder, cfg.checkpoint_every_n_steps)]
        watching = [SparsityMonitor(), LearningRateMonitor(), RichProgressBar(), ExactResume()]
        callbacks: list[Callback] = [*strategy.values(), *watching, *saving]
        loggers: list[Logger] = [instantiate(options) for options in cfg.logger.values()]
        trainer: Trainer = instantiate(
            cfg.trainer, callbacks=callbacks, logger=loggers, default_root_dir=folder, plugins=[WholeFiles()]
        )
    try:
        for logger in loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        with one_line(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
            chosen = best.best_model_path or last.best_model_path
            if not chosen:
                raise InputError(
                    "expected at least one epoch of training, got none; set trainer.max_epochs to 1 or more"
                )
        if trainer.is_global_zero:
            finish(cfg, trainer, module, data, pruners, chosen)
    except (KeyboardInterrupt, SystemExit) as stop:
        print(f"Stopped. Go on with: python train.py resume={os.path.relpath(folder)}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM if isinstance(stop, SIGTERMException) else 1) from stop
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()


def every_n_steps(folder: Path, steps: int | None) -> list[ModelCheckpoint]:
    """Return what also writes the last checkpoint within epochs, nothing if that is not wanted."""
    if steps is None:
        return []
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"expected checkpoint_every_n_steps to be null or a whole number of at least 1, got {steps}")
    return [ModelCheckpoint(folder / LAST.parent, LAST.stem, every_n_train_steps=steps, enable_version_counter=False)]


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints beside the old ones and put them in their place when they are whole.

    Lightning writes them in the system's folder for temporary files, from which a move to another disk is a copy that
    a kill leaves half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        part = Path(path).with_suffix(".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, part)
        part.replace(path)


def hush() -> None:
    """Leave out what Lightning says of itself, and warnings that nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning 2.6 on torch 2.13
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # as it should, on resuming
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")


def check_fits(module: LightningModule, checkpoint: Path) -> None:
    """Refuse a damaged checkpoint or one of another architecture, naming the first tensor that differs."""
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    except Exception as error:
        raise InputError(
            f"expected a checkpoint, got {checkpoint}, which is damaged; delete it to start anew"
        ) from error
    own = module.state_dict()
    for name in sorted(own.keys() | saved.keys()):
        shapes = [tuple(state[name].shape) if name in state else "no such tensor" for state in (own, saved)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"expected {name} of {shapes[0]} in {checkpoint}, got {shapes[1]}: it is of another architecture"
            )


def finish(
    cfg: DictConfig,
    trainer: Trainer,
    module: ImageClassifier,
    data: InMemoryImages,
    pruners: dict[str, Pruner],
    checkpoint: str,
) -> None:
    """Test and measure the models that a run ends with, and write the report into its folder."""
    folder = Path(cfg.run_folder)
    module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    models: dict[str, LightningModule] = {"masked" if pruners else "dense": module.cpu()}
    if pruners:
        states = [pruner.dense_state for pruner in pruners.values()]
        if len(states) == 1 and states[0] is not None:
            dense = copy.deepcopy(module)
            dense.load_state_dict(states[0])
            models = {"dense": dense, **models}
        models["slim"] = slim(module, data.example_input(2))
        save_slim(models["slim"], folder / "slim.pt")
    classes, labels = zip(*(predict(cfg, model, data) for model in models.values()), strict=True)
    accuracies = [float((found == true).double().mean()) for found, true in zip(classes, labels, strict=True)]
    profiles = profile_all([model.cpu() for model in models.values()], data.example_input(cfg.latency_batch_size))
    rows = [Row(*entries) for entries in zip(models, accuracies, profiles, strict=True)]
    results = {f"test/accuracy_{row.name}": row.accuracy for row in rows}
    for logger in trainer.loggers:
        logger.log_metrics(results, step=trainer.global_step)
    reports = {name: report for name, pruner in pruners.items() if (report := pruner.report(module))}
    write_summary(
        folder / "summary.json",
        rows,
        {
            "strategy": list(cfg.strategy),
            "sparsity": cfg.sparsity,
            "seed": cfg.seed,
            "overrides": list(cfg.overrides),
            "run_id": cfg.run_id,
            "checkpoint": os.path.relpath(checkpoint, folder),
            "predictions_equal": torch.equal(*classes[-2:]) if pruners else None,
            "pruning": reports,
            "versions": {"lightning_prune": __version__, "torch": torch.__version__},
        },
    )
    final_epochs = [pruner.final_epoch for pruner in pruners.values() if pruner.final_epoch is not None]
    plot_curves(folder, rows, hard_from_epoch=max(final_epochs, default=None))
    console = Console()
    console.print(EndTable(rows))
    for name, report in reports.items():
        console.print(f"\n{name}: {in_words(report)}", markup=False, highlight=False, soft_wrap=True)
    files = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    console.print(f"\nIn {os.path.relpath(folder)}: {', '.join(files)}", markup=False, highlight=False, soft_wrap=True)


def predict(cfg: DictConfig, model: LightningModule, data: InMemoryImages) -> tuple[Tensor, Tensor]:
    """Return the predicted and the true classes of all test images, on one device and with no logger."""
    tester = Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        precision=cfg.trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches: Any = tester.predict(model, datamodule=data)
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*batches, strict=True))
    return logits.argmax(dim=1), labels


class SweepReport(HydraCallback):
    """Print one table and draw one picture of all jobs when a sweep has ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        Console().print(sweep_report(folder))
        if any(not (job / "summary.json").is_file() for job in folder.iterdir() if job.is_dir()):
            raise SystemExit(1)


def existing_or(resume: str | None, default: str) -> str:
    """Return the run folder: the one to resume, if it is one, or a new one."""
    if resume is None:
        return default
    if not (Path(resume) / "config.yaml").is_file():
        raise SystemExit(f"Error in resume: expected the folder of a run, with a config.yaml in it, got {resume}")
    return str(Path(resume).absolute())


def wandb_offline() -> bool:
    """Return whether nobody is logged in to Weights & Biases on this machine."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] == "offline"
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai")
    except (OSError, netrc.NetrcParseError):
        entry = None
    return not (os.environ.get("WANDB_API_KEY") or entry)


def share_of(epochs: int, share: float) -> int:
    """Return a share of a run in epochs, at least one."""
    return max(1, round(epochs * share))


OmegaConf.register_new_resolver("share_of", share_of, replace=True)
OmegaConf.register_new_resolver("existing_or", existing_or, replace=True)
OmegaConf.register_new_resolver("wandb_offline", wandb_offline, replace=True)

if __name__ == "__main__":
    main()
