"""Train a network, make it small while it trains, and measure what is left: `python train.py --help`."""

import sys

import hydra
from omegaconf import DictConfig

from lightning_prune.runs import ending_in_one_line, refuse_misplaced, refuse_renamed, register_resolvers, run_job

register_resolvers()


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Run one job of what was typed."""
    run_job(cfg)


if __name__ == "__main__":
    with ending_in_one_line():
        refuse_renamed(sys.argv[1:])
        refuse_misplaced(sys.argv[1:])
    main()
