"""Weights that share a few values: k-means on one layer's weights, and training the values instead of the weights."""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_prune.errors import InputError

Initialization = Literal["linear", "density", "random"]
"""Where the centroids begin: equally spaced from the least to the greatest weight, at equal steps of the weights'
distribution, or at weights drawn at random. Large weights are few and matter; only the first gives them centroids."""

_MOST_ROUNDS = 10_000
"""In exact arithmetic k-means ends by itself; rounding could make it go round in a circle."""


def initial_centroids(values: Tensor, count: int, initialization: Initialization = "linear") -> Tensor:
    """Return `(count,)` centroids to begin with, ascending.

    Args:
        values: `(n,)`, float64, ascending, not empty.
        count: Number of centroids; for `"random"` not more than there are different values.
        initialization: How they are found; what is random is drawn with the same seed every time.

    Reference:
        Han, Mao, Dally, Deep Compression, 2016, arXiv:1510.00149, section 3.2.
    """
    if initialization == "linear":
        return torch.linspace(values[0], values[-1], count, dtype=values.dtype, device=values.device)
    if initialization == "random":
        different = _different(values)
        drawn = torch.randperm(len(different), generator=torch.Generator().manual_seed(0))[:count]
        return torch.sort(different[drawn.to(values.device)]).values
    places = (torch.arange(count, dtype=values.dtype, device=values.device) + 0.5) / count * (len(values) - 1)
    below = places.long()
    return torch.lerp(values[below], values[(below + 1).clamp(max=len(values) - 1)], places - below)


def k_means(values: Tensor, centroids: Tensor) -> Tensor:
    """Return the centroids at which k-means ends; one that no value is nearest to keeps its place.

    Args:
        values: `(n,)`, float64, ascending.
        centroids: `(k,)`, float64, ascending: those to begin with.

    Returns:
        `(k,)`, ascending.
    """
    # On a line a cluster is a run of the sorted values: its sum is a difference of two running sums.
    sums = torch.cat((values.new_zeros(1), values.cumsum(0)))
    before = None
    for _ in range(_MOST_ROUNDS):
        inner = torch.searchsorted(values, _borders(centroids), right=True)
        ends = torch.cat((inner.new_zeros(1), inner, inner.new_full((1,), len(values))))
        if before is not None and torch.equal(ends, before):
            break
        before, sizes = ends, ends.diff()
        centroids = torch.where(sizes > 0, sums[ends].diff() / sizes.clamp(min=1), centroids)
    return centroids


def nearest_centroid(values: Tensor, centroids: Tensor) -> Tensor:
    """Return the index of the centroid nearest to each value, the lower one of two.

    Args:
        values: Of any shape, float64.
        centroids: `(k,)`, float64, ascending.
    """
    return torch.searchsorted(_borders(centroids), values)


def _different(values: Tensor) -> Tensor:
    """Return the different ones of ascending values."""
    return torch.cat((values[:1], values[1:][values.diff() > 0]))


def _borders(centroids: Tensor) -> Tensor:
    return (centroids[1:] + centroids[:-1]) / 2


@torch.no_grad()
def cluster(weight: Tensor, bits: int, initialization: Initialization = "linear") -> tuple[Tensor, Tensor]:
    """Sort the weights of a layer that are not zero into clusters of about the same value.

    Args:
        weight: Of any shape, finite.
        bits: Of a code, 1 to 8: there are `2**bits - 1` clusters, and the code of zero. No more different values than
            that are clusters as they are.
        initialization: Where k-means begins.

    Returns:
        The centroids, `(2**bits - 1,)` or fewer, float64, and the codes of the weights, uint8, of the weight's shape: 0
        for zero, `i + 1` for centroid `i`.

    Raises:
        InputError: If a weight is not finite.

    Reference:
        Han, Mao, Dally, Deep Compression, 2016, arXiv:1510.00149, section 3.1.
    """
    if not bool(weight.isfinite().all()):
        raise InputError(f"expected finite weights to cluster, got others in one of shape {tuple(weight.shape)}")
    kept = weight[weight != 0]
    codes = torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device)
    values = kept.sort().values.double()
    centroids = _different(values)
    if len(centroids) > 2**bits - 1:
        centroids = k_means(values, initial_centroids(values, 2**bits - 1, initialization))
    codes[weight != 0] = (nearest_centroid(kept.double(), centroids) + 1).to(torch.uint8)
    return centroids, codes


def cluster_sums(values: Tensor, codes: Tensor) -> Tensor:
    """Return the sum of the values with each code, `(256,)`, float64.

    Of the gradients of weights these are the gradients of the values that they share.

    Args:
        values: Of any shape.
        codes: uint8, of the same shape.
    """
    sums = torch.zeros(256, dtype=torch.float64, device=values.device)
    return sums.index_add_(0, codes.reshape(-1).int(), values.reshape(-1).double())


class SharedWeights:
    """Weights of a module in clusters, each of which has one value.

    Args:
        module: The module.
        codes: uint8 by parameter name, of the parameter's shape, 0 for a weight that is zero for good.

    Raises:
        InputError: If codes do not fit.
    """

    def __init__(self, module: nn.Module, codes: Mapping[str, Tensor]) -> None:
        parameters = dict(module.named_parameters())
        for name, own in codes.items():
            if name not in parameters or own.shape != parameters[name].shape or own.dtype != torch.uint8:
                raise InputError(f"expected codes for {type(module).__name__}, got some of {name} that do not fit")
        self._weights = {name: parameters[name] for name in codes}
        self.codes = {name: own.to(parameters[name].device) for name, own in codes.items()}
        self._sizes = {name: own.reshape(-1).bincount(minlength=256).clamp(min=1) for name, own in self.codes.items()}

    def belong_to(self, module: nn.Module) -> bool:
        """Return whether these are parameters of this very module."""
        parameters = dict(module.named_parameters())
        return all(parameters.get(name) is weight for name, weight in self._weights.items())

    @torch.no_grad()
    def tie(self) -> None:
        """Give all weights of a cluster their mean, which is exact where they are equal, and the others zero."""
        for name, weight in self._weights.items():
            self._spread(weight.data, cluster_sums(weight.data, self.codes[name]) / self._sizes[name], name)

    @torch.no_grad()
    def add_gradients(self, parameters: Iterable[Tensor], rate: float | None) -> None:
        """Give each weight the gradient of the value that it shares: the sum of those of all that share it.

        What an optimizer then does to each of the weights is what it would do to their value.

        Args:
            parameters: Whose gradients, of any shape; others stay.
            rate: Factor of the sums; None for one over the number of weights that share the value.
        """
        own = {id(parameter) for parameter in parameters}
        for name, weight in self._weights.items():
            if id(weight) in own and weight.grad is not None:
                sums = cluster_sums(weight.grad, self.codes[name])
                self._spread(weight.grad, sums / self._sizes[name] if rate is None else sums * rate, name)

    def _spread(self, tensor: Tensor, values: Tensor, name: str) -> None:
        """Write into a tensor the value of each code, and zero for code 0."""
        values[0] = 0
        spread = values.to(tensor.dtype).index_select(0, self.codes[name].reshape(-1).int())
        tensor.copy_(spread.view(tensor.shape))
