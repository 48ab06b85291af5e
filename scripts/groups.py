"""Show which channels of a network can be pruned: the groups that go together, their layers, and what stays and why.

    python scripts/groups.py model=resnet20 data=digits                      # as text
    python scripts/groups.py model=resnet20 data=digits picture=groups.png   # and as a picture: PNG, SVG or PDF
    python scripts/groups.py outputs/2026-11-22/10-00-00 picture=groups.svg  # of a run's network

Anything that train.py takes can be said after the model, model.shortcut=B for example.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lightning_prune import prunable_groups
from lightning_prune.data import InMemoryImages
from lightning_prune.errors import InputError
from lightning_prune.reporting import RunFolder, draw_groups
from lightning_prune.runs import (
    build,
    build_network,
    ending_in_one_line,
    read_configuration,
    refuse_gone,
    refuse_renamed,
    register_resolvers,
)

CONF = Path(__file__).resolve().parents[1] / "conf"


def main() -> None:
    """Print the groups of one network; what a person got wrong ends it with one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", metavar="RUN or key=value", help="see above")
    typed = parser.parse_args().what
    pictures = [word.removeprefix("picture=") for word in typed if word.startswith("picture=")]
    with ending_in_one_line():
        show([word for word in typed if not word.startswith("picture=")], pictures)


def show(words: Sequence[str], pictures: Sequence[str]) -> None:
    """Print the groups of the network that is meant, and draw them into picture files.

    Args:
        words: The folder of a run alone, or what train.py would be told.
        pictures: Files to write.

    Raises:
        InputError: If the words mean no network, or a file is no picture.
    """
    cfg = configuration(words)
    data: InMemoryImages = build(cfg, "data")
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    network = build_network(cfg, "model", data)
    groups = prunable_groups(network, data.example_input(2))
    print(groups)
    for picture in pictures:
        draw_groups(groups, picture, cfg.model._target_.rpartition(".")[2])
        print(f"drawn into {picture}")


def configuration(words: Sequence[str]) -> DictConfig:
    """Return the configuration of a run's folder, or of the options that were typed.

    Raises:
        InputError: If the folder is not that of a run, or more is said about it.
    """
    register_resolvers()
    refuse_renamed(words)
    if all("=" in word for word in words):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides=["run_folder=.", "run_id=none", *words])
    folder = RunFolder(Path(words[0]))
    if len(words) > 1 or not folder.config.is_file():
        raise InputError(f"expected the folder of a run, with a config.yaml in it, or key=value, got {' '.join(words)}")
    cfg = read_configuration(folder)
    for options in (cfg.data, cfg.model):
        refuse_gone(options, folder, "say model=NAME and data=NAME in its place")
    return cfg


if __name__ == "__main__":
    main()
