"""Less of what other libraries print."""

import logging
import warnings


def hush() -> None:
    """Leave out what Lightning says of itself, and warnings that nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning 2.6 on torch 2.13
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # as it should, on resuming
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
