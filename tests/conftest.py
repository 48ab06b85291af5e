import pytest
import torch

import lightning_prune  # noqa: F401  # before Lightning, which a torchvision without its compiled part would break

collect_ignore = ["mistaken_import.py"]  # which fails when it is imported, as it should


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Several threads would split sums in another order from one run to the next.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
