"""Train a network, make it small while it trains, and measure what is left: `python train.py --help`."""

import os
import secrets
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.experimental.callback import Callback as HydraCallback
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from lightning_prune import KnowledgeDistillation, SparsityMonitor, save_slim
from lightning_prune.callbacks import ExactResume, Pruner
from lightning_prune.data import InMemoryImages
from lightning_prune.errors import InputError
from lightning_prune.export import load_weights
from lightning_prune.models import ImageClassifier
from lightning_prune.reporting import sweep_report
from lightning_prune.runs import (
    DENSE,
    RESOLVERS,
    SLIM,
    Comparison,
    WholeFiles,
    affordable_epochs,
    begin,
    check_finetuning,
    check_numbers,
    check_stages,
    described,
    ending,
    export_last,
    finetuning,
    fit,
    hush,
    made_once,
    reads_dense,
    reads_momentum,
    reads_teacher,
    refuse_renamed,
    refuse_unread,
    save_momentum,
    saving,
    set_epochs,
    settle_paths,
    teaching,
)
from lightning_prune.slimming import check_sliceable
from lightning_prune.training import check_together

NAMES = {None: "fine-tuned", "epochs": "scratch-E", "compute": "scratch-B"}
"""What the end table calls the slim model after its own training, by what a control has in common with the run."""

for name, resolver in RESOLVERS.items():
    OmegaConf.register_new_resolver(name, resolver, replace=True)


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Run one job; what a person got wrong ends it with one line, and in a sweep does not end the others."""
    try:
        with one_line():
            cfg = settled(cfg)
        with one_line(InputError):
            run(cfg)
    except CompactHydraException as error:
        if HydraConfig.get().mode == RunMode.RUN:
            raise
        print(f"Job {HydraConfig.get().job.num}: {error}", file=sys.stderr)


@contextmanager
def one_line(kind: type[Exception] = Exception) -> Iterator[None]:
    """Turn errors of a kind into one line: all of them where it is about what was typed, else mistakes of a person.

    HYDRA_FULL_ERROR=1 shows where they came from.
    """
    try:
        yield
    except CompactHydraException as error:
        if isinstance(error, InstantiationException) and error.__cause__ is not None:
            key = str(error).rpartition("full_key: ")[2]
            raise CompactHydraException(f"Error in {key}: {first_line(error.__cause__)}") from error
        raise
    except kind as error:
        raise CompactHydraException(f"Error: {first_line(error)}") from error


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
        cfg.overrides = list(hydra_config.overrides.task)
        refuse_unread(OmegaConf.to_container(cfg, resolve=False), cfg.overrides)  # type: ignore[arg-type]
        cfg.run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        cfg.sweep = Path(hydra_config.sweep.dir).as_posix() if hydra_config.mode == RunMode.MULTIRUN else None
        settle_paths(cfg)
    cfg.run_folder = str(folder)
    OmegaConf.save(cfg, file)
    return cfg


# The stages -----------------------------------------------------------------------------------------------------------


def run(cfg: DictConfig) -> None:
    """Run all stages and say how to go on if that is stopped."""
    hush()
    try:
        run_stages(cfg)
    except (KeyboardInterrupt, SystemExit) as stop:
        print(f"Stopped. Go on with: python train.py resume={os.path.relpath(cfg.run_folder)}", file=sys.stderr)
        raise SystemExit(128 + signal.SIGTERM if isinstance(stop, SIGTERMException) else 1) from stop


def run_stages(cfg: DictConfig) -> None:
    """Run each stage from its last checkpoint on, then compare the models that they end with."""
    folder = Path(cfg.run_folder)
    with one_line():
        check(cfg)
        data: InMemoryImages = instantiate(cfg.data)
        teacher = network(cfg.teacher.model, data) if reads_teacher(cfg) else None
        own_teacher = network(cfg.model, data) if reads_dense(cfg) else teacher
        strategy = callbacks(cfg.strategy, teacher)
        pruners = [callback for callback in strategy.values() if isinstance(callback, Pruner)]
        tuning = finetuning(cfg) if cfg.finetune else None
        tuners = callbacks(tuning.strategy, own_teacher) if tuning else {}
        check_stages(cfg, pruners, (tuners if tuning else strategy).values())
        check_strategy(cfg, data, strategy.values())
        if tuning:
            check_strategy(tuning, data, tuners.values())
    compared = Comparison(data, cfg.trainer.accelerator, cfg.trainer.precision)
    weights = teacher_weights(cfg, data) if teacher else None
    with one_line():
        load_teacher(teacher, weights, data)
        module = classifier(cfg, data)
        if cfg.weights:
            load_weights(module.network, cfg.weights)
    with trained(cfg, module, data, strategy.values()) as trainer:
        # Once more, since what a teacher knows of the batches it has seen may have changed.
        load_teacher(teacher, weights, data)
        if trainer.is_global_zero:
            models = {"teacher": ImageClassifier(teacher, data.num_classes)} if teacher else {}
            compared.add(models | leave(cfg, module, pruners, data), trainer)
        trainer.strategy.barrier()
    if tuning:
        if own_teacher is not teacher:
            load_teacher(own_teacher, folder / DENSE, data)
        finetune(cfg, tuning, data, tuners.values(), compared)
    if trainer.is_global_zero:
        problem = None
        if cfg.export is not None:
            try:
                export_last(compared, folder, data.example_input(2), cfg.export)
            except Exception as error:  # whatever it is, the run keeps its results
                problem = first_line(error)
        rows = compared.rows(data.example_input(cfg.latency_batch_size))
        compared.report(folder, rows, strategy, described(cfg))
        if problem is not None:
            print(f"Not exported as {cfg.export}: {problem}", file=sys.stderr)


def leave(
    cfg: DictConfig, module: ImageClassifier, pruners: Collection[Pruner], data: InMemoryImages
) -> dict[str, ImageClassifier]:
    """Return the models that the main stage ends with, by name, and write what they are and what the next one needs."""
    folder = Path(cfg.run_folder)
    end = ending(module, pruners, data.example_input(2))
    if pruners:
        save_slim(end.models["slim"], folder / SLIM, kept=end.kept, build=build_of(cfg, data))
    elif "quantized" in end.models:
        save_slim(module, folder / "quantized.pt", build=build_of(cfg, data))
    if reads_dense(cfg):
        torch.save(end.models["dense"].state_dict(), folder / DENSE)
    if reads_momentum(cfg):
        save_momentum(folder, module, end.kept)
    return end.models


def finetune(
    cfg: DictConfig, own: DictConfig, data: InMemoryImages, strategy: Iterable[Callback], compared: Comparison
) -> None:
    """Train the slim model of a run on, or its control from random weights, by the configuration of its own stage."""
    folder, scratch = Path(cfg.run_folder), cfg.finetune.get("from_scratch")
    build = partial(classifier, own, data)
    with one_line():
        if scratch == "compute":
            example, options = data.example_input(1), cfg.finetune
            set_epochs(own, affordable_epochs(build, folder, example, options.epochs, options.longest))
        module, held = begin(build, folder, scratch=scratch is not None, momentum=reads_momentum(cfg))
    name, weights = NAMES[scratch], " from random weights" if scratch else ""
    say(f"{name[0].upper()}{name[1:]}: the slim model, {own.trainer.max_epochs} epochs{weights}")
    with trained(own, module, data, [*strategy, *held]) as trainer:
        if trainer.is_global_zero:
            save_slim(module, folder / "finetuned.pt", build=build_of(own, data))
            compared.add({name: module}, trainer)


def check(cfg: DictConfig) -> None:
    """Refuse what can be refused before data is read or anything trained, and set what holds for all stages."""
    check_numbers(cfg)
    if cfg.finetune:
        check_finetuning(cfg)
    if reads_momentum(cfg):
        check_sliceable(instantiate(cfg.optimizer))
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    seed_everything(cfg.seed, workers=True, verbose=False)
    callbacks({name: options for name, options in cfg.strategy.items() if "teacher" not in options}, None)


def check_strategy(cfg: DictConfig, data: InMemoryImages, strategy: Collection[Callback]) -> None:
    """Refuse what would be refused when training starts, before the hours of a teacher."""
    check_together(strategy)
    for callback in strategy:
        if isinstance(callback, KnowledgeDistillation):
            callback.check_layers(classifier(cfg, data))


def callbacks(strategy: Mapping[Any, Any], teacher: nn.Module | None) -> dict[str, Callback]:
    """Build the callbacks of a strategy, those with a teacher around this one, whose weights may come later."""
    return {
        name: instantiate(options, teacher=teacher) if "teacher" in options else instantiate(options)
        for name, options in strategy.items()
    }


def network(model: DictConfig, data: InMemoryImages) -> nn.Module:
    """Build a network for the data."""
    built: nn.Module = instantiate(model, num_classes=data.num_classes, in_channels=data.in_channels)
    return built


def build_of(cfg: DictConfig, data: InMemoryImages) -> dict[str, Any]:
    """Return what `hydra.utils.instantiate` builds the wide module of a stage from, for the files of a slim one."""
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    network = {**model, "num_classes": data.num_classes, "in_channels": data.in_channels}
    path = f"{ImageClassifier.__module__}.{ImageClassifier.__name__}"
    return {"_target_": path, "network": network, "num_classes": data.num_classes}


def classifier(cfg: DictConfig, data: InMemoryImages) -> ImageClassifier:
    """Build what a stage trains, from its seed on."""
    seed_everything(cfg.seed, workers=True, verbose=False)
    optimizer, lr_scheduler = instantiate(cfg.optimizer), instantiate(cfg.lr_scheduler)
    module = ImageClassifier(network(cfg.model, data), data.num_classes, optimizer, lr_scheduler)
    module.example_input_array = data.example_input(2)
    return module


@contextmanager
def trained(
    cfg: DictConfig, module: ImageClassifier, data: InMemoryImages, strategy: Iterable[Callback]
) -> Iterator[Trainer]:
    """Train a module by the configuration of a stage, in its folder; the loggers take results until this is left."""
    folder = Path(cfg.run_folder)
    with one_line():
        watching = [SparsityMonitor(), LearningRateMonitor(), RichProgressBar(), ExactResume()]
        loggers: list[Logger] = [instantiate(options) for options in cfg.logger.values()]
        trainer: Trainer = instantiate(
            cfg.trainer,
            callbacks=[*strategy, *watching, *saving(folder, cfg.checkpoint_every_n_steps)],
            logger=loggers,
            default_root_dir=folder,
            plugins=[WholeFiles()],
        )
    try:
        for logger in loggers:
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        fit(trainer, module, data, folder)
        yield trainer
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()


# The teacher ----------------------------------------------------------------------------------------------------------


def teacher_weights(cfg: DictConfig, data: InMemoryImages) -> Path:
    """Return where the teacher's weights are, and train it first if they are nowhere."""
    if cfg.teacher.checkpoint:
        return Path(cfg.teacher.checkpoint)
    own = teaching(cfg)

    def train(part: Path) -> None:
        say(f"Teacher: {own.trainer.max_epochs} epochs first, kept in {os.path.relpath(own.run_folder)}")
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            OmegaConf.save(own, part / "config.yaml")
        with one_line():
            module = classifier(own, data)
        with trained(OmegaConf.merge(own, {"run_folder": str(part)}), module, data, []):  # type: ignore[arg-type]
            pass

    if not made_once(Path(own.run_folder), train):
        say(f"Teacher: taken from {os.path.relpath(own.run_folder)}")
    return Path(own.run_folder)


def load_teacher(teacher: nn.Module | None, weights: Path | None, data: InMemoryImages) -> None:
    """Give the teacher its weights, if there is one."""
    if teacher is None or weights is None:
        return
    try:
        load_weights(teacher, weights)
    except InputError as error:
        if "another architecture" not in str(error):
            raise
        raise InputError(
            f"{error}; expected a teacher of {data.in_channels} channels and {data.num_classes} classes, as the data "
            "has, and its architecture in model@teacher.model=NAME"
        ) from error


# What a run says ------------------------------------------------------------------------------------------------------


@rank_zero_only
def say(line: str) -> None:
    """Print a line, once for all processes."""
    print(line, flush=True)


class SweepReport(HydraCallback):
    """Print one table and draw one picture of all jobs when a sweep has ended."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        Console().print(sweep_report(folder))
        if any(not (job / "summary.json").is_file() for job in folder.iterdir() if job.is_dir()):
            raise SystemExit(1)


if __name__ == "__main__":
    try:
        refuse_renamed(sys.argv[1:])
    except InputError as mistake:
        raise SystemExit(f"Error: {mistake}") from mistake
    main()
