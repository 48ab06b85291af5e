"""The calls of a network that compute with rounded numbers, and the tensors that are rounded between them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BatchNormCall:
    """The batch norm behind a layer: the call that runs it, and the stored names of its tensors."""

    call: str
    weight: str | None
    bias: str | None
    mean: str
    variance: str
    eps: float


@dataclass(frozen=True)
class LayerCall:
    """The call that computes a convolution or a linear layer.

    Args:
        name: Its module's, or its weight's if that belongs to none; `fc#2` where `fc` is used for the second time.
        call: Its call; see `Interceptor`.
        weight: Stored name of its weight; the weight in use may be made from it.
        bias: Stored name of its bias, None if it has none.
        axis: The weight's dimension of output channels.
        norm: What the layer's output goes through next, and nothing else does.
        reads: The name of the tensor that it reads, of those that are rounded where they are made; None for another.
        signed: Whether that can be negative.
        relus: Calls of the activation functions right in front of it.
    """

    name: str
    call: str
    weight: str
    bias: str | None
    axis: int
    norm: BatchNormCall | None
    reads: str | None
    signed: bool
    relus: tuple[str, ...] = ()


@dataclass(frozen=True)
class RoundedTensor:
    """A tensor that is rounded where a call makes it, or several with one range.

    Args:
        name: That of the call that makes the first of them.
        calls: Those whose outputs are rounded.
        again: Those whose outputs are rounded already when their inputs are.
        signed: Whether they can be negative.
    """

    name: str
    calls: tuple[str, ...]
    again: tuple[str, ...]
    signed: bool


@dataclass(frozen=True)
class QuantizerPlacement:
    """Where a network is quantized.

    Args:
        layers: In the order in which they run.
        tensors: What is rounded between them, where everything is.
        left: Layers that cannot be reached, and why.
        part: Path of the smallest part of the network that runs once and holds all of this.
        counts: How often the functions are called of which some calls are listed here, by path and name.
    """

    layers: list[LayerCall]
    tensors: list[RoundedTensor]
    left: dict[str, str] = field(default_factory=dict)
    part: str = ""
    counts: dict[str, int] = field(default_factory=dict)

    def calls(self) -> list[str]:
        """Return the names of all calls that are listed."""
        of_layers = [call for layer in self.layers for call in (layer.call, *layer.relus)]
        norms = [layer.norm.call for layer in self.layers if layer.norm is not None]
        return of_layers + norms + [call for tensor in self.tensors for call in (*tensor.calls, *tensor.again)]
