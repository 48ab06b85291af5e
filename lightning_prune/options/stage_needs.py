"""What the stages of a run need of each other: a teacher, the dense network, the momentum."""

import re
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]


def needs_teacher(config: Config) -> bool:
    """Return whether a strategy of any stage has a teacher other than the run's own dense network."""
    tuning = config["finetune"]
    taught = bool(tuning) and _has_teacher(tuning["strategy"]) and not needs_dense(config)
    return _has_teacher(config["strategy"]) or taught


def needs_dense(config: Config) -> bool:
    """Return whether the slim model trains on with the run's own dense network as its teacher.

    That is so where it is told, and where the strategy keeps that network and no other teacher is there or given.
    """
    told = (config["finetune"] or {}).get("teacher", "teacher")
    if told is not None:
        return bool(told == "dense")
    other = any(is_of_teacher(override) for override in config["overrides"])
    return keeps_dense(config["strategy"]) and not _has_teacher(config["strategy"]) and not other


def needs_momentum(config: Config) -> bool:
    """Return whether the slim model trains on with the momentum of the main stage."""
    return (config["finetune"] or {}).get("momentum") == "sliced"


def _has_teacher(strategy: Config) -> bool:
    return any("teacher" in options for options in strategy.values())


def keeps_dense(strategy: Config) -> bool:
    """Return whether a strategy keeps its dense network until it prunes for good."""
    return any(options.get("keep_dense") for options in strategy.values())


def is_of_teacher(override: str, key: str = "") -> bool:
    """Return whether an override is of this key of the teacher's, or of any.

    >>> is_of_teacher("model@teacher.model=resnet56", "model"), is_of_teacher("teacher.epochs=3", "model")
    (True, False)
    """
    return re.match(rf"(.*@|[+~]*)teacher\.{key}", override.partition("=")[0]) is not None
