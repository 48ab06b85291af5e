"""What is typed at the command line, completed: own classes are given what is typed for them and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path

from lightning_prune.options.search_path import CONF

OPEN_GROUPS = ("callbacks", "data", "logger", "lr_scheduler", "model", "module", "optimizer", "trainer")
"""Groups whose options are arguments of whatever stands at their `_target_`, so that any name may be one."""

OF_NONE = ("granularity", "criterion", "schedule", "experiment", "debug")
"""Groups in which nothing is chosen unless it is asked for."""

_OPEN = re.compile(rf"(?:(?:teacher|finetune)\.)?(?:{'|'.join(OPEN_GROUPS)})\..+")
_TARGET = re.compile(
    r"(?P<place>data|lr_scheduler|model|module|optimizer|teacher\.(?:lr_scheduler|model|optimizer)|finetune\.lr_scheduler)"
    r"\._target_"
)


def completed(words: Sequence[str]) -> list[str]:
    """Return what was typed with what it means.

    A `_target_` without a choice in its group means the option `own` of that group, which has no arguments: those of
    the default one are of no use to another class. And whatever is typed below such a group is an argument, whether
    the configuration has one of this name or not, with plus signs in front or without.

    >>> completed(["data._target_=my.Data", "data.root=here", "seed=1"])
    ['data=own', '++data._target_=my.Data', '++data.root=here', 'seed=1']
    """
    chosen = {word.partition("=")[0].lstrip("+") for word in words}
    found: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if key in OF_NONE and value == "null":
            continue  # as it is; Hydra has no word for that
        own = _TARGET.fullmatch(key.lstrip("+"))
        if own is not None:
            group = own["place"].rpartition(".")[2]
            choice = group if group == own["place"] else f"{group}@{own['place']}"
            if choice not in chosen:
                found.append(f"{choice}=own")
        opens = bool(equals) and _OPEN.fullmatch(key.lstrip("+")) is not None and "@" not in key
        is_new = key.startswith("+") and "@" not in key and ("." in key or not (CONF / key.lstrip("+")).is_dir())
        found.append(f"++{word.lstrip('+')}" if opens or is_new else word)
    return found


def spelled(program: str, command: str) -> str:
    """Return how a command of this package is typed by who has typed a program's name.

    Args:
        program: That name, as `sys.argv` begins with.
        command: Such as `train`.

    >>> spelled("/usr/bin/lightning-prune", "train"), spelled("train.py", "train")
    ('lightning-prune train', 'python train.py')
    """
    path = Path(program)
    if path.name == "__main__.py":
        return f"python -m {path.parent.name} {command}"
    return f"python {program}" if path.suffix == ".py" else f"{path.name} {command}"
