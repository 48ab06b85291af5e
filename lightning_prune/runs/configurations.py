"""The configuration of a run: as it was typed, or that of the run to go on with, kept in a file of the run's folder."""

import os
import pkgutil
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lightning_prune.errors import InputError
from lightning_prune.options import is_of_teacher, refuse_strays, refuse_unknown, refuse_unread
from lightning_prune.reporting import RunFolder
from lightning_prune.runs.lengthening import LENGTHS, is_lengthened, lengthened
from lightning_prune.runs.messages import joined

LAYOUT = 2
"""Raised when keys get other names or `_target_` leads to other places: runs of another layout are not resumed."""


def folder_of(cfg: DictConfig) -> RunFolder:
    """Return the folder of a run, or of one of its stages."""
    return RunFolder(Path(cfg.run_folder))


def job_configuration(cfg: DictConfig) -> DictConfig:
    """Return the configuration of this run, which is that of the resumed run if there is one, and keep it in a file.

    Args:
        cfg: As Hydra has composed it.

    Raises:
        InputError: If the folder holds another run, the resumed one cannot go on, or what was typed is not read.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    if cfg.resume:
        others = [override for override in hydra.overrides.task if not override.startswith("resume=")]
        return _resumed(cfg, others, folder)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return read_configuration(folder)  # another process of a run that the first has begun
    if folder.config.exists():
        raise InputError(
            f"expected a new folder for a new run, got {os.path.relpath(folder.path)}, which holds one; go on with it "
            "by resume=FOLDER, or choose another"
        )
    cfg.overrides = [word.lstrip("+") for word in hydra.overrides.task]
    for group in ("strategy", "callbacks", "logger"):
        refuse_strays(group, cfg[group])
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    refuse_unknown(config, hydra.overrides.task)
    refuse_unread(config, cfg.overrides)
    cfg.layout = LAYOUT
    cfg.run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    cfg.sweep = Path(hydra.sweep.dir).as_posix() if hydra.mode == RunMode.MULTIRUN else None
    make_paths_absolute(cfg)
    take_models_of_runs(cfg)
    cfg.run_folder = str(folder.path)
    OmegaConf.save(cfg, folder.config)
    return cfg


def _resumed(composed: DictConfig, typed: Sequence[str], folder: RunFolder) -> DictConfig:
    """Return the configuration of the run to go on with, of a longer one if that was typed.

    That of a longer one is not written yet: it may be refused.

    Raises:
        InputError: If it cannot go on, or more was typed.
    """
    if typed and not is_lengthened(typed):
        words = " ".join(word.lstrip("+") for word in typed)
        raise InputError(
            f"expected nothing beside resume={composed.resume}, got {words}; a run is resumed as it was, or longer: "
            f"{', '.join(LENGTHS)}, and beside one of these optimizer.lr and lr_scheduler"
        )
    cfg = read_configuration(folder)
    refuse_other_layout(cfg, composed.resume)
    if set(composed) - set(cfg):
        missing = ", ".join(sorted(map(str, set(composed) - set(cfg))))
        raise InputError(f"expected the configuration of a whole run, got {folder.config} without {missing}")
    cfg.run_folder = str(folder.path)
    if typed:
        return lengthened(cfg, composed, typed, folder)
    OmegaConf.save(cfg, folder.config)
    return cfg


def make_paths_absolute(cfg: DictConfig) -> None:
    """Make the paths in a configuration good for a later resume from elsewhere."""
    cfg.teacher.folder = str(Path(cfg.teacher.folder).absolute())
    for options, key in ((cfg.data, "path"), (cfg, "weights"), (cfg.teacher, "checkpoint")):
        if options.get(key):
            options[key] = str(Path(str(options[key])).absolute())


def take_models_of_runs(cfg: DictConfig) -> None:
    """Take the architectures of the runs whose weights are taken, unless others were typed.

    A teacher of which no other architecture is told has that of the network, but for what is typed below it.

    Raises:
        InputError: If such a run has one that is no more.
    """
    if cfg.weights and not any(override.startswith("model=") for override in cfg.overrides):
        cfg.model = _model_of(cfg.weights, "model=NAME") or cfg.model
    if not any(override.startswith("model@teacher.model=") for override in cfg.overrides):
        typed = {word.partition("=")[0].removeprefix("teacher.model.").partition(".")[0] for word in cfg.overrides}
        stated: Any = OmegaConf.to_container(cfg.teacher.model)
        cfg.teacher.model = OmegaConf.merge(cfg.model, {key: value for key, value in stated.items() if key in typed})
    if cfg.teacher.checkpoint and not any(is_of_teacher(override, "model") for override in cfg.overrides):
        cfg.teacher.model = _model_of(cfg.teacher.checkpoint, "model@teacher.model=NAME") or cfg.teacher.model


def _model_of(checkpoint: str, remedy: str) -> Any:
    """Return how the model of a checkpoint is built, as the configuration of its run says; None if there is none."""
    path = Path(checkpoint)
    folders = [RunFolder(folder) for folder in ([path] if path.is_dir() else [path.parent, path.parent.parent])]
    found = next((folder for folder in folders if folder.config.is_file()), None)
    if found is None:
        return None
    model = read_configuration(found).model
    refuse_gone(model, found, f"add {remedy}")
    return model


# Configurations of other runs -----------------------------------------------------------------------------------------


def read_configuration(folder: RunFolder) -> DictConfig:
    """Return the configuration in a run's folder.

    Raises:
        InputError: If it is not the folder of a run.
    """
    if not folder.config.is_file():
        raise InputError(f"expected the folder of a run, with a config.yaml in it, got {folder.path}")
    try:
        cfg = OmegaConf.load(folder.config)
    except Exception as error:  # of whatever kind the parser has
        raise InputError(
            f"expected the configuration of a run, keys with values, got {folder.config}: {joined(error)}"
        ) from error
    if not isinstance(cfg, DictConfig) or not cfg:
        raise InputError(f"expected the configuration of a run, keys with values, got {folder.config}")
    return cfg


def refuse_other_layout(cfg: DictConfig, folder: str) -> None:
    """Refuse to go on with a run whose configuration has other names than those of this version.

    Args:
        cfg: That configuration.
        folder: Of the run.

    Raises:
        InputError: If it has.
    """
    layout = cfg.get("layout") or 0
    if not isinstance(layout, int):
        raise InputError(f"expected layout in the configuration of {folder} to be a whole number, got {layout}")
    if layout != LAYOUT:
        other = "an older" if layout < LAYOUT else "a newer"
        raise InputError(
            f"expected a run of this version to go on with, got resume={folder}, made by {other} one; begin a new run, "
            f"with weights={folder} for its weights"
        )


def refuse_gone(options: DictConfig, folder: RunFolder, remedy: str) -> None:
    """Refuse options of another run that name what cannot be imported.

    Args:
        options: The part of its configuration that is read.
        folder: That run's.
        remedy: What to do, for the message.

    Raises:
        InputError: If there is such a name.
    """
    for target in _targets(OmegaConf.to_container(options)):
        try:
            pkgutil.resolve_name(target)
        except (ImportError, AttributeError, ValueError) as error:
            raise InputError(
                f"expected a run of this version, got {folder.path}, made by an older version or with other code: "
                f"{target} is not there; {remedy}"
            ) from error


def _targets(options: Any) -> Iterator[str]:
    """Yield what options lead to by `_target_`, at any depth."""
    if isinstance(options, dict):
        if "_target_" in options:
            yield options["_target_"]
        options = list(options.values())
    if isinstance(options, list):
        for entry in options:
            yield from _targets(entry)
