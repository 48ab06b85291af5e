"""What was typed at the command line against what is read of it, by the chosen strategies and at all."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prune.errors import InputError

Config = Mapping[str, Any]

SHARED = {"granularity": None, "criterion": None, "schedule": None, "scope": "layer"}
"""Keys that several strategies read, with their defaults."""


def reads_teacher(config: Config) -> bool:
    """Return whether a strategy of any stage has a teacher."""
    stages = [config["strategy"], *([config["finetune"]["strategy"]] if config["finetune"] else [])]
    return any("teacher" in options for strategy in stages for options in strategy.values())


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
        several = [typed for typed in overrides if typed.startswith(f"{key}=[") and "," in typed]
        if several:
            raise InputError(f"expected one {key}, got {several[0]}; choose one of them")
        if config[key] != default and not re.search(rf"\$\{{{key}\b", str(config["strategy"])):
            raise InputError(
                f"expected a strategy that takes a {key}, got {strategies}; leave {key} out, or use strategy=gmp"
            )
    of_teacher = [typed for typed in overrides if of_teachers(typed)]
    if of_teacher and not reads_teacher(config):
        raise InputError(
            f"expected a strategy that has a teacher, got {of_teacher[0]} with {strategies}; leave it out, or use "
            "strategy=kd"
        )
    of_training = [
        typed for typed in of_teacher if not of_teachers(typed, "checkpoint") and not of_teachers(typed, "model")
    ]
    if of_training and config["teacher"]["checkpoint"]:
        raise InputError(
            f"expected a teacher to train, got {of_training[0]} with teacher.checkpoint="
            f"{config['teacher']['checkpoint']}; leave one of them out"
        )


def check_numbers(config: Config) -> None:
    """Refuse what has to be a whole number of at least 1 and is not.

    Raises:
        InputError: If there is such.
    """
    numbers = {"latency_batch_size": config["latency_batch_size"]}
    if reads_teacher(config) and not config["teacher"]["checkpoint"]:
        numbers["teacher.epochs"] = config["teacher"]["epochs"]
    if config["finetune"]:
        numbers["finetune.epochs"] = config["finetune"]["epochs"]
    for key, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise InputError(f"expected {key} to be at least 1, got {number}")


def of_teachers(override: str, key: str = "") -> bool:
    """Return whether an override is of this key of the teacher's, or of any.

    >>> of_teachers("model@teacher.model=resnet56", "model"), of_teachers("teacher.epochs=3", "model")
    (True, False)
    """
    return re.match(rf"(.*@|[+~]*)teacher\.{key}", override.partition("=")[0]) is not None
