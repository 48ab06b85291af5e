"""What a configuration names, as objects: anything with a `_target_`, whatever arguments its constructor takes."""

import inspect
import pkgutil
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import LightningDataModule
from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_prune.arguments import near
from lightning_prune.errors import InputError
from lightning_prune.options import options_of
from lightning_prune.runs.annotations import hint_of_default, hints_of, mismatch
from lightning_prune.runs.messages import first_line


class BuildError(InputError):
    """What a key of the configuration names cannot be built.

    Args:
        key: Of the innermost part that cannot, such as `strategy.gmp.granularity`.
        cause: Why.
    """

    def __init__(self, key: str, cause: BaseException) -> None:
        self.key, self.cause = key, cause
        text = first_line(cause) + _place(cause)
        super().__init__(text if text.startswith(f"{key}") else f"{key}: {text}")


def _place(cause: BaseException) -> str:
    """Return where in somebody's own code an error was raised; nothing of errors in packages that are installed."""
    frames = traceback.extract_tb(cause.__traceback__)
    if isinstance(cause, InputError) or not frames:
        return ""
    path = Path(frames[-1].filename)
    if {"site-packages", "lightning_prune"} & set(path.parts):
        return ""
    return f" (line {frames[-1].lineno} of {path.name}, {frames[-1].line})"


def build(cfg: DictConfig, key: str, given: Mapping[str, Any] | None = None) -> Any:
    """Build what a key of the configuration names, and all in it.

    Args:
        cfg: The configuration of a stage.
        key: With dots, such as `strategy.sfp`.
        given: Arguments that the configuration cannot hold.

    Raises:
        BuildError: If that fails.
    """
    options = OmegaConf.select(cfg, key)
    if not isinstance(options, DictConfig) or options.get("_target_") is None:
        raise BuildError(key, InputError(f"expected options with a _target_, got {options}"))
    check_arguments(options, key, given or {})
    others = dict(given or {})
    waits = others.pop("_partial_", options.get("_partial_", False))
    try:
        make = instantiate(options, _partial_=True)
    except InstantiationException as error:
        if error.__cause__ is None:
            raise
        raise BuildError(_failing_key(options, key), error.__cause__) from error.__cause__
    # Handed to Hydra, instances of dataclasses would come out as configurations.
    if waits:
        return partial(make, **others) if others else make
    try:
        return make(**others)
    except Exception as error:
        raise BuildError(key, error) from error


def target_of(options: DictConfig, key: str) -> Callable[..., Any]:
    """Return the class or function that options name by `_target_`.

    Raises:
        BuildError: If there is none.
    """
    path = options.get("_target_")
    if not isinstance(path, str) or not path:
        raise BuildError(f"{key}._target_", InputError(f"expected the dotted path of a class, got {path or 'none'}"))
    try:
        target = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BuildError(
            f"{key}._target_", InputError(f"expected the dotted path of a class or function, got {path}: {error}")
        ) from error
    if not (inspect.isclass(target) or inspect.isroutine(target) or isinstance(target, partial)):
        raise BuildError(f"{key}._target_", InputError(f"expected a class or function, got {path}, which is neither"))
    found: Callable[..., Any] = target
    return found


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the arguments that a class or function takes, by name; any where that cannot be known."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError):  # of some that are written in C
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}


def takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Return whether arguments of any name are taken, or which ones is not known."""
    return any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def check_arguments(options: DictConfig, key: str, given: Mapping[str, Any]) -> None:
    """Refuse options that are no arguments of what they name, say which are, and refuse to go without those it needs.

    Args:
        options: With a `_target_`; options within them are checked as well.
        key: Of the options.
        given: Further arguments.

    Raises:
        BuildError: If there are such.
    """
    target = target_of(options, key)
    parameters = parameters_of(target)
    is_whole = not (options.get("_partial_") or given.get("_partial_") or "_args_" in options)
    needed = [name for name, one in parameters.items() if one.default is one.empty and one.kind in _NAMED]
    said = {name for name in options if not OmegaConf.is_missing(options, name)} | set(given)
    missing = [name for name in needed if name not in said]
    name = getattr(target, "__qualname__", options["_target_"])
    unknown = [str(name) for name in [*options, *given] if name not in parameters and not str(name).startswith("_")]
    if unknown and not takes_any(parameters):
        known = [one for one in parameters if one not in given and (is_whole or one not in missing)]
        listed = f"arguments of {name}, {', '.join(known)}" if known else f"{name} to be given nothing more"
        raise BuildError(key, InputError(f"expected {listed}, got {unknown[0]}{near(unknown[0], known)}"))
    if missing and is_whole:
        raise BuildError(
            key, InputError(f"expected {', '.join(missing)} for {name}, got none; say {key}.{missing[0]}=VALUE")
        )
    for argument in [name for name in map(str, options) if name in said & parameters.keys() - given.keys()]:
        default, value = parameters[argument].default, options[argument]
        expected = mismatch(hints_of(target).get(argument, hint_of_default(default)), value)
        if expected is not None and value != default:
            hint = f"; {argument}={value} chooses one" if value in options_of(argument) else ""
            raise BuildError(f"{key}.{argument}", InputError(f"expected {expected}, got {value}{hint}"))
    for inner in map(str, options):
        part = None if OmegaConf.is_missing(options, inner) else options[inner]
        if isinstance(part, DictConfig) and "_target_" in part:
            check_arguments(part, f"{key}.{inner}", {})


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _failing_key(options: DictConfig | ListConfig, key: str) -> str:
    """Return the key of the innermost part that cannot be built, which Hydra tells in the text of its error alone."""
    names: Any = options if isinstance(options, DictConfig) else range(len(options))
    for name in names:
        part = None if OmegaConf.is_missing(options, name) else options[name]
        if isinstance(part, DictConfig | ListConfig):
            try:
                instantiate(part)
            except InstantiationException:
                return _failing_key(part, f"{key}.{name}" if isinstance(options, DictConfig) else f"{key}[{name}]")
    return key


def build_data(cfg: DictConfig) -> LightningDataModule:
    """Build the data of a run.

    Raises:
        BuildError: If it is no LightningDataModule.
    """
    data = build(cfg, "data")
    if not isinstance(data, LightningDataModule):
        raise BuildError("data", InputError(f"expected a LightningDataModule, got {type(data).__name__}"))
    return data
