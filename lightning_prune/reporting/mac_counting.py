"""How many multiply-accumulates a model takes, counted while it runs."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput, as_arguments


def macs(model: nn.Module, example_input: ExampleInput) -> int:
    """Count the multiply-accumulates of convolutions and linear layers for one sample, functional calls included.

    Batched products of activations (attention), batch norm, pooling and biases do not count.

    Args:
        model: Any module; it stays as it was.
        example_input: Arguments of `forward` on the model's device; the first axis of the first one is the batch.

    Returns:
        The count over the batch, divided by the batch size.

    Raises:
        InputError: If `example_input` is no batch of tensors.
    """
    inputs = checked_input(example_input)
    return _counted(model, inputs, {}).total // len(inputs[0])


def macs_by_weight(model: nn.Module, example_input: ExampleInput, weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Count the multiply-accumulates of `macs` apart for each weight with which they are computed.

    Args:
        model: As `macs` takes it.
        example_input: See `macs`.
        weights: Weights of the model of any shape, by name; what is computed with a tensor that is made of one, as
            parametrizations do, counts for none.

    Returns:
        The counts for one sample, by name.

    Raises:
        InputError: If `example_input` is no batch of tensors.
    """
    inputs = checked_input(example_input)
    counter = _counted(model, inputs, {_storage(weight): name for name, weight in weights.items()})
    return {name: counter.by_weight[name] / len(inputs[0]) for name in weights}


def _counted(model: nn.Module, inputs: tuple[Tensor, ...], names: Mapping[int, str]) -> "_MacCounter":
    counter = _MacCounter(names)
    with undisturbed(model, inputs), _unfused_attention(), counter:
        model(*inputs)
    return counter


def _storage(tensor: Tensor) -> int:
    """Return where the memory of a tensor begins: the same for all views of it."""
    return tensor.untyped_storage().data_ptr()


class _MacCounter(TorchDispatchMode):
    """Add up the multiply-accumulates of the operators that run inside the context.

    Args:
        names: Of weights whose share is told apart, by the beginning of their memory.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names, self.total, self.by_weight = names, 0, Counter[str]()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        cost = _COSTS.get(func.overloadpacket)
        if cost is None:
            # In inference mode composite operators arrive whole: conv2d is one, and contains a convolution.
            with self:
                parts: Any = func.decompose(*args, **named)
            return func(*args, **named) if parts is NotImplemented else parts
        out: Tensor = func(*args, **named)
        count = cost(out, *args)
        self.total += count
        if self.names:
            found = (self.names.get(_storage(arg)) for arg in args if isinstance(arg, Tensor))
            self.by_weight.update({name: count for name in found if name is not None})
        return out


def _linear_macs(out: Tensor, x: Tensor, weight: Tensor, *rest: object) -> int:
    return out.numel() * weight.shape[-1]


def _convolution_macs(out: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    transposed = rest[4]
    # Of a transposed convolution every *input* element meets one slice of the weight.
    return (x if transposed else out).numel() * weight[0].numel()


def _mm_macs(out: Tensor, left: Tensor, right: Tensor, *rest: object) -> int:
    return out.numel() * len(right)


def _addmm_macs(out: Tensor, bias: Tensor, left: Tensor, right: Tensor, *rest: object) -> int:
    return out.numel() * len(right)


_aten = torch.ops.aten
_COSTS: dict[Any, Callable[..., int]] = {
    _aten.linear: _linear_macs,
    _aten.convolution: _convolution_macs,
    _aten.mm: _mm_macs,
    _aten.addmm: _addmm_macs,
}


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Switch off torch's fused attention kernels, which hide the linear layers they run."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def undisturbed(model: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[None]:
    """Hold the model in evaluation mode without gradients, then restore every training flag and the random state.

    Args:
        model: Any module.
        inputs: What it takes, of any shape: their devices have random states too.
    """
    training = [(module, module.training) for module in model.modules()]
    devices = {tensor.device for tensor in (*inputs, *model.parameters())}
    with torch.inference_mode(), torch.random.fork_rng([d.index for d in devices if d.type != "cpu"]):
        try:
            # Not `eval()`: modules override it, to merge weights for example, and the flags alone would not undo that.
            for module, _ in training:
                module.training = False
            yield
        finally:
            for module, flag in training:
                module.training = flag


def checked_input(example_input: ExampleInput) -> tuple[Tensor, ...]:
    """Return the arguments of `forward`, the first of which has a batch axis, `(n, ...)`; refuse anything else."""
    inputs = as_arguments(example_input)
    if inputs[0].ndim == 0 or len(inputs[0]) == 0:
        raise InputError(f"expected example_input with a batch axis of 1 or more, got shape {tuple(inputs[0].shape)}")
    return inputs
