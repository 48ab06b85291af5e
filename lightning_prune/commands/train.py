"""`lightning-prune train`: one run, or a sweep, from what was typed."""

import sys
from collections.abc import Sequence

import hydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from lightning_prune.options import (
    CONF,
    OwnConfigurations,
    completed,
    composing,
    refuse_bad_choices,
    refuse_misplaced,
    refuse_renamed,
    register_resolvers,
)


def main(words: Sequence[str]) -> None:
    """Run what was typed; mistakes end it with one line.

    Args:
        words: Overrides such as `strategy=sfp`, and Hydra's own options.
    """
    register_resolvers()
    Plugins.instance().register(OwnConfigurations)
    with composing(words, job="lightning_prune.runs.job"):
        refuse_renamed(words)
        refuse_misplaced(words)
        refuse_bad_choices(words)
        # Lightning starts the other processes of a run with the words that stand there.
        sys.argv[1:] = completed(words)
        _train()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _train(cfg: DictConfig) -> None:
    """Run one job of what was typed."""
    from lightning_prune.runs import run_job  # which takes seconds to import, and help does without

    run_job(cfg)
