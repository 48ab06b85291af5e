"""Write the network that a run ended with as a file that other programs open: `python scripts/export.py --help`."""

import sys

from lightning_prune.commands import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
