"""The Trainer of a stage, and what goes into it: callbacks, loggers, a profiler."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelSummary
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig

from lightning_prune.arguments import shown
from lightning_prune.errors import InputError
from lightning_prune.runs.building import BuildError, build

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
"""Those that Lightning has by name."""


def build_trainer(cfg: DictConfig, callbacks: Sequence[Callback], plugins: Sequence[Any], logger: Any) -> Trainer:
    """Build the Trainer of a run, with what it has of its own beside what its configuration says.

    Args:
        cfg: The configuration of a stage.
        callbacks: Beside those below `trainer.callbacks`.
        plugins: Beside those below `trainer.plugins`.
        logger: What logs.

    Raises:
        BuildError: If that fails.
    """
    make = build(cfg, "trainer", {"_partial_": True})
    own = {name: _several(make.keywords.pop(name, None)) for name in ("callbacks", "plugins")}
    if make.keywords.pop("logger", None) is not None:
        raise BuildError("trainer.logger", InputError("expected loggers by logger=NAME, or logger=none, got them here"))
    strange = [one for one in own["callbacks"] if not isinstance(one, Callback)]
    if strange:
        raise BuildError("trainer.callbacks", InputError(f"expected callbacks, got {shown(strange[0])}"))
    everyone = [*own["callbacks"], *callbacks]
    make.keywords["profiler"] = _profiler(make.keywords.get("profiler"), cfg.run_folder)
    make.keywords.setdefault("default_root_dir", cfg.run_folder)
    if any(isinstance(one, ModelSummary) for one in everyone):
        make.keywords["enable_model_summary"] = True  # else Lightning refuses the callback
    try:
        trainer: Trainer = make(callbacks=everyone, plugins=[*own["plugins"], *plugins], logger=logger)
    except Exception as error:
        raise BuildError("trainer", error) from error
    return trainer


def _several(found: Any) -> list[Any]:
    """Return one object or several as a list."""
    if found is None:
        return []
    return list(found) if isinstance(found, Sequence) else [found]


def _profiler(profiler: Any, folder: str) -> Any:
    """Return a profiler whose report is a file, if one is told by name: Lightning prints it where nobody listens."""
    if not isinstance(profiler, str) or profiler not in PROFILERS:
        return profiler
    return PROFILERS[profiler](dirpath=folder, filename="profile")


def build_callbacks(cfg: DictConfig) -> list[Callback]:
    """Build the callbacks that were chosen beside the strategies.

    Raises:
        BuildError: If one is no callback, or a metric is to stop the training and none is told.
    """
    found = {f"callbacks.{name}": build(cfg, f"callbacks.{name}") for name in cfg.callbacks}
    for key, callback in found.items():
        if not isinstance(callback, Callback):
            raise BuildError(key, InputError(f"expected a lightning.pytorch.Callback, got {shown(callback)}"))
        if isinstance(callback, EarlyStopping) and callback.monitor is None:
            raise BuildError(
                key, InputError("expected a metric that the module logs in validation, got none; set monitor=NAME")
            )
    return list(found.values())


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """Build the loggers that were chosen.

    Raises:
        BuildError: If one is no logger.
    """
    found = {f"logger.{name}": build(cfg, f"logger.{name}") for name in cfg.logger}
    for key, logger in found.items():
        if not isinstance(logger, Logger):
            raise BuildError(key, InputError(f"expected a lightning.pytorch.loggers.Logger, got {shown(logger)}"))
    return list(found.values())
