"""Measure the networks that a run ended with once more: `python scripts/evaluate.py --help`."""

import sys

from lightning_prune.commands import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
