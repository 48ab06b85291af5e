"""`python -m lightning_prune COMMAND` is `lightning-prune COMMAND`."""

from lightning_prune.commands import main

if __name__ == "__main__":
    main()
