"""The options of a group of conf/, so that a new yaml meets every test of its family."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

CONF = Path(__file__).parents[1] / "conf"


def options(group: str) -> list[str]:
    """Return the names of the yamls of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def built(group: str, name: str) -> Any:
    """Return what an option makes, with its defaults."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", overrides=["logger=csv", f"{group}={name}"])[group])
