"""What was typed at the command line against what is read of it, by the chosen strategies and at all."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prune.errors import InputError

Config = Mapping[str, Any]

SHARED = {"granularity": None, "criterion": None, "schedule": None, "scope": "layer"}
"""Keys that several strategies read, with their defaults."""

RENAMED = {"scheduler": "lr_scheduler"}
"""Words in keys that are no more, with those in their place."""


def refuse_renamed(overrides: Sequence[str]) -> None:
    """Refuse keys by names that they no longer have.

    Args:
        overrides: What was typed, other options of the command line included.

    Raises:
        InputError: If there are such.
    """
    for override in overrides:
        key, equals, value = override.partition("=")
        new = re.sub(r"\w+", lambda word: RENAMED.get(word[0], word[0]), key)
        if new != key:
            raise InputError(f"expected {new}{equals}{value}, as it is called now, got {override}")


def reads_teacher(config: Config) -> bool:
    """Return whether a strategy of any stage has a teacher other than the run's own dense network."""
    tuning = config["finetune"]
    taught = bool(tuning) and _has_teacher(tuning["strategy"]) and not reads_dense(config)
    return _has_teacher(config["strategy"]) or taught


def reads_dense(config: Config) -> bool:
    """Return whether the slim model trains on with the run's own dense network as its teacher.

    That is so where it is told, and where the strategy keeps that network and no other teacher is there or typed.
    """
    told = (config["finetune"] or {}).get("teacher", "teacher")
    if told is not None:
        return bool(told == "dense")
    typed = any(of_teachers(override) for override in config["overrides"])
    return _keeps_dense(config["strategy"]) and not _has_teacher(config["strategy"]) and not typed


def reads_momentum(config: Config) -> bool:
    """Return whether the slim model trains on with the momentum of the main stage."""
    return (config["finetune"] or {}).get("momentum") == "sliced"


def _has_teacher(strategy: Config) -> bool:
    return any("teacher" in options for options in strategy.values())


def _keeps_dense(strategy: Config) -> bool:
    return any(options.get("keep_dense") for options in strategy.values())


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
            raise InputError(f"expected {key} to be a whole number of at least 1, got {number}")


CHOICES = {
    "momentum": ("fresh", "sliced"),
    "teacher": (None, "dense", "teacher"),
    "from_scratch": ("epochs", "compute"),
}
"""Keys of fine-tuning that not all of its options have, and what they may be."""


def check_finetuning(config: Config) -> None:
    """Refuse options of the slim model's training that mean nothing or need what the main run does not leave.

    Raises:
        InputError: If there are such.
    """
    tuning = config["finetune"]
    for key, choices in CHOICES.items():
        if key in tuning and tuning[key] not in choices:
            known = ", ".join("null" if choice is None else choice for choice in choices)
            raise InputError(f"expected finetune.{key} to be one of {known}, got {tuning[key]}")
    longest = tuning.get("longest")
    if longest is not None and not (isinstance(longest, int | float) and longest >= 1):
        raise InputError(f"expected finetune.longest to be null or at least 1, got {longest}")
    if reads_dense(config) and not _keeps_dense(config["strategy"]):
        raise InputError(
            "expected a strategy that keeps its dense network, such as sfp, for finetune.teacher=dense, got "
            f"strategy=[{','.join(config['strategy'])}]; set finetune.teacher=teacher"
        )
    own, other = config["optimizer"]["_target_"], tuning["optimizer"].get("_target_", config["optimizer"]["_target_"])
    if tuning.get("momentum") == "sliced" and own != other:
        raise InputError(
            f"expected finetune.momentum=fresh where the optimizer changes from {own} to {other}, got sliced"
        )


def of_teachers(override: str, key: str = "") -> bool:
    """Return whether an override is of this key of the teacher's, or of any.

    >>> of_teachers("model@teacher.model=resnet56", "model"), of_teachers("teacher.epochs=3", "model")
    (True, False)
    """
    return re.match(rf"(.*@|[+~]*)teacher\.{key}", override.partition("=")[0]) is not None
