"""The command line: `lightning-prune COMMAND`, and the scripts of a clone, which are the same commands."""

from lightning_prune.commands.dispatch import main

__all__ = ["main"]
