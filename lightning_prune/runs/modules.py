"""The LightningModule that a stage trains: this package's classifier around a network, or anybody's."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, seed_everything
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_prune.errors import InputError
from lightning_prune.models import ImageClassifier
from lightning_prune.models.lr_schedules import LRSchedule
from lightning_prune.runs.building import BuildError, build, parameters_of, takes_any, target_of

ROLES = {
    "network": ("network", "net", "model"),
    "optimizer": ("optimizer",),
    "lr_scheduler": ("lr_scheduler", "scheduler"),
    "num_classes": ("num_classes", "num_labels"),
    "in_channels": ("in_channels", "in_chans"),
}
"""How constructors call what is filled in where they have such an argument and nothing else is configured for it."""

PARTS = {"network": "model", "optimizer": "optimizer", "lr_scheduler": "lr_scheduler"}
"""The key of the configuration that says how each of these is built."""


def build_network(cfg: DictConfig, key: str, data: LightningDataModule) -> nn.Module:
    """Build the network that a key names, with the classes and channels of the data where it takes them.

    Raises:
        BuildError: If that fails, or it is no network.
    """
    return _network_with_arguments(cfg, key, data)[0]


def _network_with_arguments(cfg: DictConfig, key: str, data: LightningDataModule) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that a key names, and the arguments that were filled in."""
    given, hidden = _arguments(cfg, key, data)
    if hidden:
        try:
            return _checked_network(build(cfg, key, hidden), key), hidden
        except BuildError as error:
            if not isinstance(error.cause, TypeError):
                raise
    return _checked_network(build(cfg, key, given), key), given


def _arguments(cfg: DictConfig, key: str, data: LightningDataModule) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is filled in for a network, and, of one that does not tell what it takes, what it may take as well.

    The latter is how torchvision and timm take the number of classes; whether it is so is known when it is built.
    """
    options = OmegaConf.select(cfg, key)
    parameters, known = parameters_of(target_of(options, key)), facts(data)
    given = _filled(parameters, options, known)
    is_untold = not given and takes_any(parameters) and "num_classes" not in options
    return given, {name: known[name] for name in ("num_classes",) if is_untold and name in known}


def build_module(cfg: DictConfig, data: LightningDataModule, *, model: str = "model") -> LightningModule:
    """Build what a stage trains, from its seed on.

    Args:
        cfg: The configuration of the stage.
        data: Its classes and channels are filled in where a constructor takes them.
        model: The key of the network.

    Raises:
        BuildError: If that fails, or it is no LightningModule.
    """
    seed_everything(cfg.get("seed", 0), workers=True, verbose=False)
    target = target_of(cfg.module, "module")
    if inspect.isclass(target) and not issubclass(target, LightningModule):
        raise BuildError(
            "module._target_",
            InputError(f"expected a LightningModule, got {target.__qualname__}; a network goes to model._target_"),
        )
    given = _filled(_parameters(cfg), cfg.module, facts(data) | _parts(cfg, data, model))
    module = build(cfg, "module", given)
    if not isinstance(module, LightningModule):
        raise BuildError("module", InputError(f"expected a LightningModule, got {type(module).__name__}"))
    return module


def network_of(module: LightningModule) -> nn.Module:
    """Return the part of a module whose weights are those of its network: the classifier's, or all of another's."""
    return module.network if isinstance(module, ImageClassifier) else module


def build_teacher(cfg: DictConfig, data: LightningDataModule, model: str) -> nn.Module:
    """Build a network that teaches, with random weights: another of the module's kind, without its training.

    Args:
        cfg: The configuration of the stage that it teaches.
        data: As for `build_module`.
        model: The key of its network, where the module takes one.
    """
    return network_of(build_module(cfg, data, model=model))


def build_strategy(cfg: DictConfig, teacher: nn.Module | None) -> dict[str, Callback]:
    """Build the callbacks of a stage, those with a teacher around this one, whose weights may come later."""
    is_classifier = target_of(cfg.module, "module") is ImageClassifier
    found = {}
    for name, options in cfg.strategy.items():
        given: dict[str, Any] = {"teacher": teacher} if "teacher" in options else {}
        if "student" in options and options.student is None:
            given["student"] = "network" if is_classifier else ""
        found[name] = build(cfg, f"strategy.{name}", given)
    return found


def build_options(cfg: DictConfig, data: LightningDataModule) -> dict[str, Any]:
    """Return what `hydra.utils.instantiate` builds the wide module of a stage from, for the files of a slim one."""
    parameters, known = _parameters(cfg), facts(data)
    options: dict[str, Any] = OmegaConf.to_container(cfg.module, resolve=True)  # type: ignore[assignment]
    for role, key in PARTS.items():
        name = _name(role, parameters, options)
        if name is not None and (role == "network" or parameters[name].default is parameters[name].empty):
            part: Any = OmegaConf.to_container(cfg[key], resolve=True)
            own = _network_arguments(cfg, data) if role == "network" else {}
            # The weights come from the file.
            options[name] = part | own | ({"pretrained": False} if part.get("pretrained") else {})
    return options | _filled(parameters, options, known)


def _network_arguments(cfg: DictConfig, data: LightningDataModule) -> dict[str, Any]:
    """Return what was filled in for the run's network, which is built once more only where nothing else tells."""
    given, hidden = _arguments(cfg, "model", data)
    return _network_with_arguments(cfg, "model", data)[1] if hidden else given


def refuse_unread_parts(cfg: DictConfig) -> None:
    """Refuse what was typed for a part that the module does not take: it has its own.

    Raises:
        InputError: If there is such.
    """
    parameters = _parameters(cfg)
    for role, key in PARTS.items():
        if _name(role, parameters, {}) is None and not takes_any(parameters):
            words = [word for word in cfg.overrides if word.lstrip("+~").startswith((f"{key}=", f"{key}."))]
            typed = [word for word in words if not word.endswith("=own")]
            if typed:
                raise InputError(
                    f"expected a module whose constructor takes {' or '.join(ROLES[role])}, got "
                    f"{cfg.module._target_} with {typed[0]}; leave it out, or say it as an argument below module"
                )


def facts(data: LightningDataModule) -> dict[str, Any]:
    """Return what data tells of its images: the number of classes and of channels, where it does."""
    found = {name: getattr(data, name, None) for name in ("num_classes", "in_channels")}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _parameters(cfg: DictConfig) -> Mapping[str, Any]:
    return parameters_of(target_of(cfg.module, "module"))


def _parts(cfg: DictConfig, data: LightningDataModule, model: str) -> dict[str, Any]:
    """Return the parts that the module takes, built."""
    parameters = _parameters(cfg)
    # Runs of an older version may lack what is needed for training alone.
    wanted = [role for role, key in PARTS.items() if key in cfg and _name(role, parameters, cfg.module) is not None]
    build_part: dict[str, Callable[[], Any]] = {
        "optimizer": lambda: build(cfg, "optimizer"),
        "lr_scheduler": lambda: _scheduler(cfg),
        "network": lambda: build_network(cfg, model, data),
    }
    return {role: build_part[role]() for role in ("optimizer", "lr_scheduler", "network") if role in wanted}


def _scheduler(cfg: DictConfig) -> Any:
    """Build what makes a scheduler, for the classifier also one that is not stepped once an epoch.

    Raises:
        BuildError: If another module would have to know how one is stepped.
    """
    scheduler = build(cfg, "lr_scheduler")
    if isinstance(scheduler, LRSchedule) and target_of(cfg.module, "module") is not ImageClassifier:
        raise BuildError(
            "lr_scheduler",
            InputError(
                f"expected a scheduler of torch for {cfg.module._target_}, which steps it by itself, got "
                f"{type(scheduler).__name__}, which this package's classifier steps; choose step, cosine "
                "or linear, or lr_scheduler._target_=CLASS"
            ),
        )
    return scheduler


def _filled(parameters: Mapping[str, Any], options: Mapping[Any, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that are filled in, by the names that a constructor has for them."""
    names = {role: _name(role, parameters, options) for role in known}
    return {name: known[role] for role, name in names.items() if name is not None}


def _name(role: str, parameters: Mapping[str, Any], options: Mapping[Any, Any]) -> str | None:
    """Return the name of the argument for a role; None if there is none, or it is configured."""
    return next((name for name in ROLES[role] if name in parameters and name not in options), None)


def _checked_network(network: Any, key: str) -> nn.Module:
    if not isinstance(network, nn.Module):
        raise BuildError(key, InputError(f"expected a torch.nn.Module, got {type(network).__name__}"))
    if isinstance(network, LightningModule):
        raise BuildError(
            f"{key}._target_",
            InputError(
                f"expected a network, got the LightningModule {type(network).__name__}; "
                f"module._target_ trains it with its own loss and optimizers"
            ),
        )
    return network
