"""Show which channels of a network can be pruned: `python scripts/groups.py --help`."""

import sys

from lightning_prune.commands import main

if __name__ == "__main__":
    main(["groups", *sys.argv[1:]])
