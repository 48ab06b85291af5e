"""What the files in `conf/` compute: `${times:${optimizer.lr},0.1}` calls `times`."""

import math
import netrc
import os
from pathlib import Path

from omegaconf import OmegaConf

from lightning_prune.options.metric_names import mode_of


def existing_or(resume: str | None, default: str) -> str:
    """Return the run folder: the one to resume, if it is one, or a new one."""
    if resume is None:
        return default
    from lightning_prune.reporting import RunFolder  # with torch, for which help does not wait

    if not RunFolder(Path(str(resume))).config.is_file():
        raise SystemExit(f"Error: resume: expected the folder of a run, with a config.yaml in it, got {resume}")
    return str(Path(str(resume)).absolute())


def wandb_offline() -> bool:
    """Return whether nobody is logged in to Weights & Biases on this machine."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"] == "offline"
    try:
        entry = netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai")
    except (OSError, netrc.NetrcParseError):
        entry = None
    return not (os.environ.get("WANDB_API_KEY") or entry)


def share_of(epochs: int, share: float) -> int:
    """Return a share of a run in epochs, at least one.

    >>> share_of(20, 0.25)
    5
    """
    return max(1, round(epochs * share))


def milestones(epochs: int, *percents: int) -> list[int]:
    """Return the ends of shares of a run in epochs, rounded up, none of a run whose length is not told in epochs.

    >>> milestones(4, 30, 60, 80)
    [2, 3, 4]
    """
    # A milestone at epoch 0 would cut the very first learning rate of a short run.
    return [math.ceil(epochs * percent / 100) for percent in percents] if epochs > 0 else []


def times(number: float, factor: float) -> float:
    """Return a product."""
    return number * factor


def register_resolvers() -> None:
    """Let configurations call these functions by their names."""
    for function in (existing_or, wandb_offline, share_of, milestones, times, mode_of):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)
