"""Train a network, make it small while it trains, and measure what is left: `python train.py --help`."""

import sys

from lightning_prune.commands import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
