"""What a model costs: parameters, non-zeros, multiply-accumulates, bytes and measured latency."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import nan
from random import Random
from statistics import median, quantiles
from time import perf_counter

import torch
from torch import Tensor, nn

from lightning_prune.arguments import instance, number
from lightning_prune.errors import InputError
from lightning_prune.graph import ExampleInput
from lightning_prune.reporting.mac_counting import checked_input, macs, undisturbed

# Of two equal networks on two cores, with one thread each: 1.02 to 1.2 when the machine had little else to do, 1.3 when
# a pass took half a millisecond, and medians within 2 %. Beside another busy process: 1.1 to 3, and medians up to a
# fifth apart; with as many threads as cores, 1.3 to 500.
_NOISY = 1.25
"""Upper over lower quartile of a latency beyond which its median says too little to be divided by another."""

_LONGEST = 3
"""How many times as long as asked for is measured while a latency is noisy."""

_ROUNDS = 9
"""Forward passes of each model at least: of five, the quartiles are the second best and the second worst."""


@dataclass(frozen=True)
class Profile:
    """Hold what one model costs.

    Attributes:
        parameters: Elements of all parameters, trainable or not, shared ones once.
        nonzeros: Those of them that are not zero; NaN of a network that nobody has trained.
        macs: Multiply-accumulates of convolutions and linear layers for one sample; NaN without an example batch.
        bytes: Size of parameters and buffers in memory.
        latency_ms: Median time of a forward pass over the example batch, in milliseconds; NaN without one.
        latency_low_ms: Lower quartile of that time: a quarter of the passes took no longer.
        latency_high_ms: Upper quartile: a quarter of the passes took longer.
        threads: CPU threads that torch may use.
        batch_size: Samples in the example batch; 0 without one.
    """

    parameters: int
    nonzeros: float
    macs: float
    bytes: int
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    threads: int
    batch_size: int

    @property
    def noisy(self) -> bool:
        """Whether the quartiles of the latency lie so far apart that its median says little."""
        return _noisy(self.latency_low_ms, self.latency_high_ms)


def profile(model: nn.Module, example_input: ExampleInput, *, latency_seconds: float = 0.5) -> Profile:
    """Measure a model in evaluation mode; it and torch's random state stay as they were.

    Args:
        model: Any module; a LightningModule is measured by its `forward`.
        example_input: Arguments of `forward` on the model's device; the first axis of the first one is the batch.
        latency_seconds: About how long to repeat the forward pass, in seconds; up to three times as
            long while the quartiles lie far apart, and for nine passes at least.

    Returns:
        The costs of the model as it is: weights that are zero count in everything but `nonzeros`.

    Raises:
        InputError: If an argument is of another kind, or `forward` does not run on the example input.
    """
    instance("model", nn.Module, model)
    number("latency_seconds", latency_seconds, "[0, inf)")
    inputs = checked_input(example_input)
    try:
        return profile_all([model], inputs, latency_seconds=latency_seconds)[0]
    except (RuntimeError, TypeError) as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise InputError(
            f"expected {type(model).__name__}.forward to run on an example input of shape {shapes}, got "
            f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error


def profile_all(
    models: Sequence[nn.Module], example_input: ExampleInput | None, *, latency_seconds: float = 0.5
) -> list[Profile]:
    """Measure several models on one input; their forward passes take turns, so that their latencies compare.

    On a machine whose speed drifts, passes of one model after those of another would measure the drift. The order
    within a round is drawn anew each time, so that none profits from what the one before it left in the caches.

    Args:
        models: Modules as `profile` takes them.
        example_input: See `profile`; None of models whose `forward` takes something other than tensors, of which MACs
            and latencies stay unknown.
        latency_seconds: See `profile`, for each model.

    Returns:
        One profile a model.

    Raises:
        InputError: If `example_input` is no batch of tensors.
    """
    if example_input is None:
        return [_profile(model, nan, (nan, nan, nan), 0) for model in models]
    inputs = checked_input(example_input)
    times = _times_ms(models, inputs, latency_seconds)
    return [
        _profile(model, macs(model, inputs), _quartiles(each), len(inputs[0]))
        for model, each in zip(models, times, strict=True)
    ]


def _profile(model: nn.Module, macs: float, quartiles_ms: tuple[float, float, float], batch_size: int) -> Profile:
    parameters = list(model.parameters())
    low, middle, high = quartiles_ms
    return Profile(
        parameters=sum(p.numel() for p in parameters),
        nonzeros=sum(int(p.count_nonzero()) for p in parameters),
        macs=macs,
        bytes=sum(t.numel() * t.element_size() for t in (*parameters, *model.buffers())),
        latency_ms=middle,
        latency_low_ms=low,
        latency_high_ms=high,
        threads=torch.get_num_threads(),
        batch_size=batch_size,
    )


def _noisy(low: float, high: float) -> bool:
    return high > _NOISY * low


def _quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles(times, n=4, method="inclusive")
    return low, middle, high


def latencies_ms(models: Sequence[nn.Module], inputs: tuple[Tensor, ...], seconds: float) -> list[float]:
    """Return the median time of a forward pass of each model, in milliseconds, measured in turn.

    Args:
        models: Modules that take the same inputs.
        inputs: What their `forward` takes, of any shape.
        seconds: About how long to measure each, in seconds.
    """
    return [median(times) for times in _times_ms(models, inputs, seconds)]


def _times_ms(models: Sequence[nn.Module], inputs: tuple[Tensor, ...], seconds: float) -> list[list[float]]:
    """Return the times of the forward passes of each model, in milliseconds; at least nine, of all equally many."""

    def timed(model: nn.Module) -> float:
        start = perf_counter()
        model(*inputs)
        if inputs[0].device.type != "cpu":
            torch.accelerator.synchronize(inputs[0].device)
        return 1e3 * (perf_counter() - start)

    with ExitStack() as stack:
        for model in models:
            stack.enter_context(undisturbed(model, inputs))
        # The first pass allocates memory, picks kernels and compiles.
        for model in models:
            timed(model)
        start = perf_counter()
        times: list[list[float]] = [[] for _ in models]
        # Its own, because the random state of whoever measures is not ours to move.
        generator, order = Random(0), list(range(len(models)))
        for length in range(1, _LONGEST + 1):
            end = start + length * seconds * len(models)
            while len(times[0]) < _ROUNDS or perf_counter() < end:
                generator.shuffle(order)
                for number in order:
                    times[number].append(timed(models[number]))
            if not any(_noisy(low, high) for low, _, high in map(_quartiles, times)):
                break
    return times
