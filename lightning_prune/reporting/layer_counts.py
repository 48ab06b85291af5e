"""What is left of each layer of a model: counted in its weights, its slim form, and one pass through that."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from lightning_prune.graph import ExampleInput, holder, suspended
from lightning_prune.pruning import layer_labels, layer_weights
from lightning_prune.reporting.mac_counting import macs_by_weight


@dataclass(frozen=True)
class LayerCount:
    """Hold what is left of one layer.

    Attributes:
        layer: Its name, or that of the weight where a layer has several.
        shape: Of its weight before anything is cut out.
        nonzeros: Weights that are not zero.
        channels: Output channels before anything is cut out.
        channels_left: Those that are in the slim model, or whose weights are not all zero.
        macs: Multiply-accumulates that it takes for one sample; NaN where they are not known.
    """

    layer: str
    shape: tuple[int, ...]
    nonzeros: int
    channels: int
    channels_left: int
    macs: float

    @property
    def weights(self) -> int:
        """Number of weights, zeros too."""
        return math.prod(self.shape)

    @property
    def sparsity(self) -> float:
        """Fraction of weights that are zero."""
        return 1 - self.nonzeros / max(1, self.weights)


def layer_counts(
    masked: nn.Module, slim: nn.Module | None = None, example_input: ExampleInput | None = None
) -> list[LayerCount]:
    """Count what is left of each layer.

    Args:
        masked: A pruned model with its zeros, or any other; it is not changed.
        slim: The same one without what could be cut out, if there is one: its channels and MACs are told then. A layer
            that it lacks has none of either.
        example_input: Arguments of `forward`; None where they are no tensors, and MACs stay unknown.

    Raises:
        InputError: If `example_input` is no batch of tensors.
    """
    weights = layer_weights(masked)
    model = masked if slim is None else slim
    left = layer_weights(model)
    if example_input is None:
        macs = dict.fromkeys(left, math.nan)
    else:
        with suspended():  # what computes with rounded numbers computes with other tensors than it stores
            seen = macs_by_weight(model, example_input, left)
        # A weight that no operator was seen to take may be in use all the same, inside of another one.
        macs = {name: count or math.nan for name, count in seen.items()}
    counts = []
    for label, (name, weight) in zip(layer_labels(weights), weights.items(), strict=True):
        filters = _filters(masked, name, weight)
        if slim is None:
            channels = int(filters.any(dim=1).sum())
        else:
            channels = len(_filters(slim, name, left[name])) if name in left else 0
        shape, nonzeros = tuple(weight.shape), int(weight.count_nonzero())
        counts.append(LayerCount(label, shape, nonzeros, len(filters), channels, macs.get(name, 0.0)))
    return counts


def _filters(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """Return the weights of each output channel of a layer, `(channels, n)`."""
    layer = model.get_submodule(holder(name).removesuffix(".parametrizations.weight"))
    values = weight.detach()
    if isinstance(layer, _ConvTransposeNd):  # (in, out of each group, ...)
        values = values.reshape(layer.groups, -1, *values.shape[1:]).transpose(1, 2).flatten(0, 1)
    return values.flatten(1)


def macs_shares(layers: Sequence[LayerCount]) -> list[float]:
    """Return the share that each layer has in the MACs of all whose MACs are known; NaN for the others."""
    whole = sum(layer.macs for layer in layers if math.isfinite(layer.macs))
    return [layer.macs / whole if whole else math.nan for layer in layers]


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as `16x3x3x3`."""
    return "x".join(map(str, shape))


def shared_start(names: Iterable[str]) -> str:
    """Return the module that all layers are in, with its dot; "" if there is none.

    >>> shared_start(["network.conv1", "network.fc"]), shared_start(["conv1"])
    ('network.', '')
    """
    tops = {name.partition(".")[0] + "." if "." in name else "" for name in names}
    return tops.pop() if len(tops) == 1 else ""


def write_layers(path: Path, layers: Sequence[LayerCount]) -> None:
    """Write all layers as CSV, a line for each; what is not known stays empty.

    Args:
        path: Usually `layers.csv` in the run folder.
        layers: See `layer_counts`.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["layer", "shape", "weights", "nonzeros", "sparsity", "channels", "channels_left", "macs", "macs_share"]
        )
        for layer, share in zip(layers, macs_shares(layers), strict=True):
            counts = [layer.weights, layer.nonzeros, f"{layer.sparsity:.6f}", layer.channels, layer.channels_left]
            costs = [f"{layer.macs:.0f}", f"{share:.6f}"] if math.isfinite(share) else ["", ""]
            writer.writerow([layer.layer, shape_text(layer.shape), *counts, *costs])
