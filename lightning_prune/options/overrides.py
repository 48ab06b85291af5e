"""What was typed at the command line against what is read of it, by the chosen strategies and at all."""

import re
from collections.abc import Mapping, Sequence

from omegaconf import OmegaConf

from lightning_prune.arguments import near
from lightning_prune.errors import InputError
from lightning_prune.options.search_path import CONF
from lightning_prune.options.stage_needs import Config, is_of_teacher, needs_teacher

SHARED = {"granularity": None, "criterion": None, "schedule": None, "scope": "layer"}
"""Keys that several strategies read, with their defaults."""

RENAMED = {
    "scheduler": "lr_scheduler",
    "teacher.scheduler": "teacher.lr_scheduler",
    "finetune.scheduler": "finetune.lr_scheduler",
    "strategy.slimming": "strategy.network_slimming",
}
"""Keys and groups that are called otherwise now."""

WITHIN = {"quantizer": "strategy.qat.quantizer", "distillation": "strategy.kd"}
"""Groups whose options go into a strategy, and where they are read."""

WITHOUT = {"quantizer": "strategy.qat.quantizer=null", "distillation": "strategy.kd.loss=null"}
"""How to choose none of such a group."""

OF_FINETUNING = {
    "quantizer": "quantizer@finetune.strategy.qat.quantizer=NAME",
    "distillation": "the keys below finetune.strategy.kd",
}
"""How the same is told for the last stage."""

RENAMED_OPTIONS = {
    ("strategy", "slimming"): "network_slimming",
    ("granularity", "filter"): "output_channel",
    ("granularity", "channel"): "input_channel",
}
"""Options that are called otherwise now, by group."""


def refuse_renamed(overrides: Sequence[str]) -> None:
    """Refuse keys and options by names that they no longer have.

    Args:
        overrides: What was typed, other options of the command line included.

    Raises:
        InputError: If there are such.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        new = "".join(map(_renamed, re.split(r"(^[+~]+|@)", key)))
        if new in RENAMED.values() and "." in new and value.isidentifier():
            new = f"lr_scheduler@{new}"  # a name, which chooses in a group
        options = [RENAMED_OPTIONS.get((key.lstrip("+"), word), word) for word in re.split(r"(\W)", value)]
        if new != key or "".join(options) != value:
            raise InputError(f"expected {new}{equals}{''.join(options)}, as it is called now, got {override}")


def _renamed(key: str) -> str:
    """Return a key under its name of today."""
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return key


def refuse_misplaced(overrides: Sequence[str]) -> None:
    """Refuse options of a group in another place than that where a strategy reads them, and several of one group.

    Args:
        overrides: What was typed, other options of the command line included.

    Raises:
        InputError: If there are such.
    """
    for override in overrides:
        for group, place in WITHIN.items():
            plain = override.lstrip("+~")
            if plain.startswith(f"{group}."):
                raise InputError(
                    f"expected options of a {group} below {place}, where strategy={place.split('.')[1]} has them, got "
                    f"{override}; --cfg job --package {place} lists them"
                )
            if override in (f"~{group}", f"~{WITHOUT[group].partition('=')[0]}"):
                raise InputError(f"expected {WITHOUT[group]} for no {group}, got {override}")
            if plain.startswith(f"{group}=[") and "," in plain:
                raise InputError(f"expected one {group}, got {override}; choose one of them")


def refuse_strays(group: str, options: Config) -> None:
    """Refuse what stands among the chosen options of a group that can have several, and is none.

    Args:
        group: Such as `strategy` or `callbacks`.
        options: Those of each, by name.

    Raises:
        InputError: If there is such.
    """
    for name, one in options.items():
        if not isinstance(one, Mapping) or "_target_" not in one:
            raise InputError(
                f"expected {group}.NAME with a _target_ each, got {group}.{name}={one}; in conf/{group}/NAME.yaml let "
                f"the first line be `# @package {group}.NAME`, at the command line add {group}.{name}._target_=CLASS"
                f"{near(str(name), [other for other in options if other != name])}"
            )


def known_keys() -> set[str]:
    """Return the keys that every configuration has, and the groups."""
    return {str(key) for key in OmegaConf.load(CONF / "train.yaml")} | {
        folder.name for folder in CONF.iterdir() if folder.is_dir()
    }


def refuse_unknown(config: Config, overrides: Sequence[str]) -> None:
    """Refuse keys that were deleted and are needed, and new ones that nothing reads.

    Args:
        config: The configuration, its interpolations as they stand.
        overrides: What was typed.

    Raises:
        InputError: If there are such.
    """
    known = known_keys()
    for word in overrides:
        top = re.split(r"[.@=]", word.lstrip("~+"))[0]
        if word.startswith("~") and top in known and top not in config:
            raise InputError(f"expected {top}=VALUE, which every run needs, got {word}")
        is_read = top in known or "/" in top or re.search(rf"\$\{{{top}\b", str(config)) is not None
        if word.startswith("+") and not is_read:
            raise InputError(
                f"expected a key that is read, got {word.lstrip('+')}, which nothing reads{near(top, known)}"
            )


def refuse_unread(config: Config, overrides: Sequence[str]) -> None:
    """Refuse options that no chosen strategy reads, and several of a group in which the last would win.

    Args:
        config: The configuration, its interpolations as they stand.
        overrides: What was typed, such as `"scope=global"`.

    Raises:
        InputError: If there are such.
    """
    strategies = f"strategy=[{','.join(config['strategy']) or 'none'}]"
    for key, default in SHARED.items():
        several = [override for override in overrides if override.startswith(f"{key}=[") and "," in override]
        if several:
            raise InputError(f"expected one {key}, got {several[0]}; choose one of them")
        if config[key] != default and not re.search(rf"\$\{{{key}\b", str(config["strategy"])):
            raise InputError(
                f"expected a strategy that takes a {key}, got {strategies}; leave {key} out, or use strategy=gmp"
            )
    of_teacher = [override for override in overrides if is_of_teacher(override)]
    if of_teacher and not needs_teacher(config):
        raise InputError(
            f"expected a strategy that has a teacher, got {of_teacher[0]} with {strategies}; leave it out, or use "
            "strategy=kd"
        )
    of_training = [
        one for one in of_teacher if not is_of_teacher(one, "checkpoint") and not is_of_teacher(one, "model")
    ]
    if of_training and config["teacher"]["checkpoint"]:
        raise InputError(
            f"expected a teacher to train, got {of_training[0]} with teacher.checkpoint="
            f"{config['teacher']['checkpoint']}; leave one of them out"
        )
