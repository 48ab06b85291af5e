"""Labels that edges connect are one channel, against SciPy."""

import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from lightning_prune.slimming.channels.channel_labels import components


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_scipy(seed):
    count = 300
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(count, (2, 50 * (seed + 1)), generator=generator)
    graph = coo_matrix((torch.ones(len(left)), (left, right)), shape=(count, count))
    _, number = connected_components(graph, directed=False)
    lowest = {n: list(number).index(n) for n in set(number)}
    assert components(count, left, right).tolist() == [lowest[n] for n in number]


def test_long_chains_are_one_component():
    order = torch.randperm(5000)
    assert (components(5000, order[:-1], order[1:]) == 0).all()
    assert components(3, order[:0], order[:0]).tolist() == [0, 1, 2]
