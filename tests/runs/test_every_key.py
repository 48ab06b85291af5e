"""Every key that `lightning-prune train --help` shows, and every key of every option of a group, set to another value.

Each is composed as it would be typed, all parts of the run are built and checked, and what the key is about has to come
out different. Keys are found in the configurations: a new one fails until it has an effect.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run_here
from configured import options
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lightning_prune.data.digits import digits
from lightning_prune.options import CONF, completed, is_of_teacher, needs_dense, needs_momentum, register_resolvers
from lightning_prune.reporting.run_folder import RunFolder
from lightning_prune.reporting.summary import read_summary
from lightning_prune.runs.building import build_data
from lightning_prune.runs.checkpoints import checkpoint_callbacks
from lightning_prune.runs.modules import build_module, build_strategy
from lightning_prune.runs.monitoring import run_metric
from lightning_prune.runs.run_checks import check_options
from lightning_prune.runs.stages import finetuning_stage, teacher_stage
from lightning_prune.runs.trained_once import baseline_kind
from lightning_prune.runs.trainers import build_callbacks, build_loggers

register_resolvers()
WRITTEN = {"layout", "run_id", "run_folder", "overrides", "lengthened", "sweep"}
"""What the program writes itself."""

NEEDED = {
    "granularity": ["strategy=gmp"],
    "criterion": ["strategy=gmp", "granularity=output_channel"],
    "schedule": ["strategy=gmp"],
    "quantizer": ["strategy=qat"],
    "distillation": ["strategy=kd"],
    "finetune": ["strategy=sfp", "export=null"],
}
"""What a group stands beside."""

PLACES = {
    "quantizer": ("strategy.qat.quantizer",),
    "distillation": ("strategy.kd.loss", "strategy.kd.features", "strategy.kd.task_weight"),
}
"""Where the options of a group are, if not below its name."""

ELSEWHERE = {"image_folder", "cifar10", "cifar100", "mnist", "own", "huggingface", "timm", "torchvision"}
"""Options that need files, a network or a class of one's own; those of data and models have tests of their families."""


ALIKE = {"asfp", "fpgm", "ista", "resnet32", "resnet44", "resnet56", "resnet110"}
"""Options of the class and the keys of another one, with other values."""


def keys_of(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a configuration that lead to values."""
    for name, value in options.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(value, Mapping) and value:
            yield from keys_of(value, key)
        elif not str(name).startswith("_"):
            yield key


@functools.cache
def composed(*words: str) -> DictConfig:
    """Return what is composed of words as they are typed; nobody changes it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["run_folder=run", "run_id=run", *completed(words)])
    cfg.overrides = list(words)
    return cfg


# Another legal value --------------------------------------------------------------------------------------------------

OTHERS: dict[str, str] = {
    "monitor": "val/loss",
    "mode": "min",
    "scope": "global",
    "threads": "2",
    "baseline": "none",
    "export": "null",
    "tags": "[a]",
    "checkpoint_every_n_steps": "7",
    "data.views": "2",
    "data.size": "16",
    "criterion.by": "l2",
    "sparsity": "0.3",
    "granularity.channels": "true",
    "granularity.m": "8",
    "granularity.block": "[2,2]",
    "uncut": "refuse",
    "skip": "[last]",
    "rewind": "weights",
    "rewind_to": "3",
    "every": "0.01",
    "residual": "inner",
    "variant": "official",
    "structures": "[block]",
    "initialization": "random",
    "gradient": "detach",
    "layers": "null",
    "mine": "4",
    "connectivity": "0.2",
    "activations_from": "0.5",
    "freeze_ranges": "0.5",
    "freeze_batch_norm": "0.5",
    "decay": "0.9",
    "shortcut": "B",
    "head": "cifar",
    "milestones": "[3]",
    "momentum": "0.5",
    "finetune.momentum": "sliced",
    "finetune.teacher": "teacher",
    "strategy.kd.warm_up": "2",
    "strategy.kd.features.layers": "[conv1]",
    "finetune.from_scratch": "compute",
    "logger.wandb.name": "one",
    "lr_scheduler.monitor": "val/accuracy",
    "strategy.ista.residual": "coupled",
    "strategy.network_slimming.residual": "coupled",
    "strategy.gal.every": "0.02",
    "strategy.lottery.scope": "layer",
    "strategy.lottery.rewind": "learning_rate",
    "strategy.weight_sharing.layers": "{fc: null}",
    "strategy.qat.layers": "{fc: null}",
    "finetune.strategy.qat.layers": "{fc: null}",
    "weight_bits": "5",
    "activation_bits": "5",
    "gradient_bits": "8",
    "first_bits": "32",
    "last_bits": "32",
    "model.head": "mlp",
    "callbacks.device_stats.cpu_stats": "true",
    "callbacks.swa.annealing_strategy": "linear",
    "callbacks.timer.duration": "00:00:00:09",
    "callbacks.timer.interval": "step",
    "callbacks.early_stopping.mode": "min",
    "lr_scheduler.mode": "max",
}
"""By key, or by its last part; all others follow from what stands there."""


def other_value(key: str, value: Any) -> str:
    """Return another legal value of a key as it is typed."""
    if key == "granularity.dim":
        return str(1 - value)
    for name in (key, key.rpartition(".")[2]):
        if name in OTHERS:
            return OTHERS[name]
    if isinstance(value, bool):
        return str(not value).lower()
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float):
        return repr(value / 2 if value else 0.25)
    if value is None:
        return "1"
    return f"{value}x"


# What it is about -----------------------------------------------------------------------------------------------------


def look(thing: Any, seen: frozenset[int] = frozenset()) -> Any:
    """Return what an object is made of, in a form that can be compared."""
    if isinstance(thing, Tensor):
        return tuple(thing.shape), str(thing.dtype), thing.double().sum().item()
    if isinstance(thing, str | int | float | bool | Path | torch.dtype | torch.device) or thing is None:
        return repr(thing)
    if id(thing) in seen or len(seen) > 12:
        return type(thing).__name__
    deeper = seen | {id(thing)}
    if isinstance(thing, nn.Module):
        state = [(name, look(tensor)) for name, tensor in thing.state_dict().items()]
        own = {name: value for name, value in vars(thing).items() if not name.startswith("_")}
        return repr(thing), state, look(own, deeper)
    if isinstance(thing, Mapping):
        return {str(key): look(value, deeper) for key, value in thing.items()}
    if isinstance(thing, Sequence | set | frozenset):
        return [look(value, deeper) for value in thing]
    if isinstance(thing, functools.partial):
        return look(thing.func, deeper), look(thing.args, deeper), look(thing.keywords, deeper)
    cells = [look(cell.cell_contents, deeper) for cell in getattr(thing, "__closure__", None) or ()]
    return getattr(thing, "__qualname__", type(thing).__name__), cells, look(getattr(thing, "__dict__", {}), deeper)


def settings(cfg: DictConfig) -> Any:
    return OmegaConf.to_container(cfg, resolve=True)


def parts_of(section: str, cfg: DictConfig) -> Any:
    """Return what the keys of a section are about."""
    if section not in GROUPS:
        check_options(cfg)
    module = functools.partial(build_module, cfg, DATA)
    shared = ("sparsity", "scope", "round_to", "min_width", "granularity", "criterion", "schedule")
    found: dict[str, Callable[[], Any]] = {
        "strategy": lambda: build_strategy(cfg, nn.Linear(1, 1)),
        "optimizer": lambda: module().optimizer,
        "lr_scheduler": lambda: module().lr_scheduler,
        "data": lambda: build_data(cfg),
        "callbacks": lambda: build_callbacks(cfg),
        "logger": lambda: build_loggers(cfg),
        "teacher": lambda: settings(teacher_stage(cfg)),
        "finetune": lambda: (
            settings(finetuning_stage(cfg)),
            needs_momentum(cfg),
            needs_dense(cfg),
            [cfg.finetune.get(name) for name in ("from_scratch", "longest")],  # of the control, which is built last
        ),
        "threads": torch.get_num_threads,
        "monitor": lambda: run_metric(cfg, module(), DATA),
        "mode": lambda: run_metric(cfg, module(), DATA),
        "baseline": lambda: baseline_kind(cfg, build_strategy(cfg, None).values()),
        "checkpoint_every_n_steps": lambda: checkpoint_callbacks(
            RunFolder(Path("run")), "val/accuracy", "max", cfg.checkpoint_every_n_steps
        ),
    }
    return look(found["strategy" if section in shared else section]() if section not in WHOLE else module())


GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}

WHOLE = ("model", "module", "seed")
"""Sections that change the module itself."""

DATA = digits()

RUN = {"latency_batch_size", "export", "tags", "print_config", "weights", "resume", "teacher.checkpoint"}
"""Keys that take effect when the run has been trained, or need another run: they have tests of their own."""


def own_keys(cfg: DictConfig, group: str) -> list[str]:
    """Return the keys of what was chosen in a group."""
    places = PLACES.get(group, (group,))
    parts = {place: OmegaConf.select(cfg, place) for place in places}
    raw = {place: OmegaConf.to_container(part) if OmegaConf.is_config(part) else part for place, part in parts.items()}
    return [
        key
        for place, options in raw.items()
        if options is not None
        for key in (keys_of(options, place) if isinstance(options, dict) else [place])
    ]


def chosen() -> list[list[str]]:
    """Return the choices whose keys are tried, as they are typed, the group last."""
    kept = sorted(GROUPS - {"trainer", "debug", "experiment"})
    return [
        [*NEEDED.get(group, []), f"{group}={name}"]
        for group in kept
        for name in options(group)
        if name not in ELSEWHERE | ALIKE | {"none"}
    ]


NOT_THERE = ("strategy.admm.mine", "strategy.pconv.sparsity")
"""Keys that another choice beside them has, and these cannot."""


def is_free(cfg: DictConfig, key: str) -> bool:
    """Return whether a key is for a person to set here: a teacher is prepared, parts of a method are chosen by name."""
    parent, _, name = key.rpartition(".")
    raw = OmegaConf.to_container(OmegaConf.select(cfg, parent))[name] if parent else None  # type: ignore[index, call-overload]
    by_name = raw in ("${granularity}", "${criterion}", "${schedule}") or key.endswith((".loss", ".path"))
    by_name |= raw == {} or raw == "${lr_scheduler}" or key in NOT_THERE
    if key == "finetune.from_scratch":
        return bool(OmegaConf.select(cfg, key) == "epochs")
    return not by_name and (name not in ("teacher", "student") or key == "finetune.teacher")


def failures(words: list[str], keys: list[str]) -> list[str]:
    """Return which keys have no effect, or break the run, beside these words."""
    plain, found = composed(*words), []
    before: dict[str, Any] = {}
    typed = {key: other_value(key, OmegaConf.select(plain, key)) for key in keys}
    everything = composed(*words, *(f"{key}={value}" for key, value in typed.items()))
    for key in keys:
        section = key.partition(".")[0]
        if section not in before:
            before[section] = parts_of(section, plain.copy())
        cfg = plain.copy()
        OmegaConf.update(cfg, key, OmegaConf.select(everything, key), merge=False, force_add=True)
        try:
            after = parts_of(section, cfg)
        except Exception as error:
            found.append(f"{key}={typed[key]}: {error!r}")
        else:
            if before[section] == after:
                found.append(f"{key}={typed[key]}: no effect")
    return found


@pytest.mark.parametrize("words", chosen(), ids=lambda words: words[-1])
def test_keys_of_an_option_have_an_effect(words: list[str]) -> None:
    cfg = composed(*words)
    keys = [key for key in own_keys(cfg, words[-1].partition("=")[0]) if is_free(cfg, key)]
    assert failures(words, keys) == []


def test_keys_of_the_run_have_an_effect() -> None:
    cfg, words = composed("strategy=[sfp,gmp]"), ["strategy=[sfp,gmp]"]
    keys = set(keys_of(OmegaConf.to_container(cfg))) - WRITTEN - RUN  # type: ignore[arg-type]
    of_run = sorted(key for key in keys if key.partition(".")[0] not in GROUPS)
    assert {"seed", "sparsity", "scope", "round_to", "baseline", "teacher.epochs", "threads"} <= set(of_run)
    assert failures(words, [key for key in of_run if not is_of_teacher(key)]) == []
    assert failures(["strategy=kd"], [key for key in of_run if is_of_teacher(key)]) == []


TRAINED_WITH = [
    ["max_epochs=1", "max_steps=9", "max_time=00:00:09:00", "accelerator=cpu", "precision=bf16-mixed"],
    ["accumulate_grad_batches=2", "gradient_clip_val=1.0", "gradient_clip_algorithm=value", "overfit_batches=4"],
    ["limit_train_batches=4", "limit_val_batches=1", "limit_test_batches=2", "val_check_interval=0.5"],
    ["check_val_every_n_epoch=2", "num_sanity_val_steps=1", "log_every_n_steps=1", "enable_progress_bar=false"],
    ["enable_model_summary=true", "profiler=simple", "deterministic=true", "benchmark=true", "detect_anomaly=true"],
    ["fast_dev_run=true"],
]
"""What is typed below `trainer.` in a run each; those that not every machine has are left out."""

OF_MACHINES = {"trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.sync_batchnorm"}


def test_keys_of_the_trainer_are_all_tried() -> None:
    tried = {f"trainer.{word.partition('=')[0]}" for words in TRAINED_WITH for word in words}
    assert tried == set(keys_of({"trainer": settings(composed().trainer)})) - OF_MACHINES


@pytest.mark.parametrize("words", TRAINED_WITH, ids=lambda words: words[0])
def test_trainer_takes_its_keys(words: list[str], tmp_path: Path) -> None:
    typed = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    first = words[0].partition("=")[0]
    short = {"max_epochs": "1", "limit_train_batches": "4", "enable_progress_bar": "false"} | typed
    fixed = ["strategy=gmp", "export=null", "baseline=none", "logger=csv", "hydra.run.dir=run"]
    result = run_here("train.py", *fixed, *(f"trainer.{key}={value}" for key, value in short.items()), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = {row.name: row for row in read_summary(tmp_path / "run/summary.json").rows}
    cfg = OmegaConf.load(tmp_path / "run/config.yaml")
    assert all(str(cfg.trainer[key]).lower() == value for key, value in typed.items())
    assert math.isfinite(rows["slim"].score)
    assert rows["slim"].examples == {"limit_train_batches": 128, "fast_dev_run": 64}.get(first, 360)
    if "profiler" in typed:
        assert "run_training_batch" in (tmp_path / "run/fit-profile.txt").read_text()
        assert "Total params" in result.stdout
    if "fast_dev_run" in typed:
        assert not (tmp_path / "run/checkpoints").exists()
        return
    steps = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == {"accumulate_grad_batches": 2}.get(first, 4)
