"""The state of the global random generators, in a form that every checkpoint can hold."""

import random
from typing import Any

import numpy
import torch

State = dict[str, Any]


def random_state(device: torch.device) -> State:
    """Return the state of all global random generators, as tensors and builtins.

    Args:
        device: The device whose generator is read beside the CPU's.
    """
    version, words, gauss = random.getstate()
    _, keys, *rest = numpy.random.get_state(legacy=True)
    state = {
        "torch": torch.get_rng_state(),
        "python": [version, torch.tensor(words), gauss],
        "numpy": [torch.tensor(keys.tolist()), *rest],  # type: ignore[union-attr]
    }
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: State, device: torch.device) -> None:
    """Set all global random generators to what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    keys, *rest = state["numpy"]
    numpy.random.set_state(("MT19937", numpy.array(keys.tolist(), dtype=numpy.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
