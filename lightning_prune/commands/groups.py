"""Show which channels of a network can be pruned: the groups that go together, their layers, and what stays and why.

    lightning-prune groups model=resnet20 data=digits                      # as text
    lightning-prune groups model=resnet20 data=digits picture=groups.png   # and as a picture: PNG, SVG or PDF
    lightning-prune groups outputs/2026-11-22/10-00-00 picture=groups.svg  # of a run's network

Anything that lightning-prune train takes can be said after the model, model.shortcut=B for example.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from lightning_prune.commands.one_line_parser import OneLineParser
from lightning_prune.errors import InputError
from lightning_prune.options import (
    CONF,
    OwnConfigurations,
    completed,
    composing,
    refuse_bad_choices,
    refuse_renamed,
    register_resolvers,
)
from lightning_prune.reporting import RunFolder, draw_groups
from lightning_prune.runs import build_data, dense_module, ending_in_one_line, finished_configuration, network_of
from lightning_prune.slimming import prunable_groups


def main(words: Sequence[str]) -> None:
    """Print the groups of one network; what a person got wrong ends it with one line.

    Args:
        words: What was typed.
    """
    parser = OneLineParser(
        prog="lightning-prune groups", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", metavar="RUN or key=value", help="see above")
    with ending_in_one_line():
        typed = parser.parse_args(words).what
        pictures = [word.removeprefix("picture=") for word in typed if word.startswith("picture=")]
        show([word for word in typed if not word.startswith("picture=")], pictures)


def show(words: Sequence[str], pictures: Sequence[str]) -> None:
    """Print the groups of the network that is meant, and draw them into picture files.

    Args:
        words: The folder of a run alone, or what `train` would be told.
        pictures: Files to write.

    Raises:
        InputError: If the words mean no network, or a file is no picture.
    """
    for picture in pictures:
        if not Path(picture).name or not Path(picture).parent.is_dir():
            raise InputError(f"expected picture=FILE in a folder that is there, got picture={picture}")
    cfg = configuration(words)
    module, example = dense_module(cfg, build_data(cfg))
    if example is None:
        raise InputError(f"expected a module whose forward takes tensors, got {type(module).__name__}")
    network = network_of(module)
    name = type(module).__name__ if network is module else cfg.model._target_.rpartition(".")[2]
    groups = prunable_groups(network, example)
    print(groups)
    for picture in pictures:
        draw_groups(groups, picture, name)
        print(f"drawn into {picture}")


def configuration(words: Sequence[str]) -> DictConfig:
    """Return the configuration of a run's folder, or of the options that were typed.

    Raises:
        InputError: If the folder is not that of a run, or more is said about it.
    """
    register_resolvers()
    Plugins.instance().register(OwnConfigurations)
    if all("=" in word for word in words):
        with composing(words, job="lightning_prune.runs.job"):
            refuse_renamed(words)
            refuse_bad_choices(words)
            with initialize_config_dir(str(CONF), version_base="1.3"):
                return compose("train", overrides=["run_folder=.", "run_id=none", *completed(words)])
    folder = RunFolder(Path(words[0]))
    if len(words) > 1 or not folder.config.is_file():
        raise InputError(f"expected the folder of a run, with a config.yaml in it, or key=value, got {' '.join(words)}")
    return finished_configuration(folder.path)
