import math
import random
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from lightning_prune.errors import InputError
from lightning_prune.models.classifier import ImageClassifier
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.models.resnet import resnet20
from lightning_prune.reporting import profiling
from lightning_prune.reporting.profiling import Profile, latencies_ms, macs, profile, profile_all


class Functional(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(weights)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, *self.weights)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(6, 8, 3, padding=1), (6, 5, 4), 8 * 5 * 4 * 6 * 9),
        (nn.Conv2d(6, 8, 3, stride=2, dilation=2), (6, 9, 9), 8 * 3 * 3 * 6 * 9),
        (nn.Conv2d(6, 8, 3, padding="same", groups=2), (6, 5, 4), 8 * 5 * 4 * 3 * 9),
        (nn.Conv2d(6, 12, 3, groups=6), (6, 5, 4), 12 * 3 * 2 * 9),
        (nn.Conv1d(2, 3, 4), (2, 10), 3 * 7 * 2 * 4),
        (nn.Conv3d(2, 3, 2), (2, 4, 4, 4), 3 * 27 * 2 * 8),
        (nn.ConvTranspose2d(6, 8, 3, stride=2), (6, 5, 4), 6 * 5 * 4 * 8 * 9),
        (nn.ConvTranspose2d(6, 8, 3, groups=2), (6, 5, 4), 6 * 5 * 4 * 4 * 9),
        (nn.ConvTranspose1d(4, 2, 3, stride=2, output_padding=1), (4, 5), 4 * 5 * 2 * 3),
        (nn.Linear(7, 5), (7,), 35),
        (nn.Linear(7, 5, bias=False), (3, 7), 3 * 35),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), (3, 4, 4), 0),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_macs_of_a_layer_are_those_worked_by_hand(layer, shape, expected, batch):
    assert macs(layer, torch.randn(batch, *shape)) == expected


def test_functional_calls_count():
    convolution = Functional(lambda x, w: F.conv2d(x, w, padding=1, groups=2), torch.randn(8, 3, 3, 3))
    linear = Functional(lambda x, w, b: F.linear(x, w, b), torch.randn(5, 7), torch.randn(5))
    product = Functional(lambda x, w: x @ w, torch.randn(7, 5))

    assert macs(convolution, torch.randn(2, 6, 5, 4)) == 8 * 5 * 4 * 3 * 9
    assert macs(linear, torch.randn(2, 7)) == 35
    assert macs(product, torch.randn(2, 7)) == 35


def test_linear_layer_counts_however_torch_multiplies_it():
    # A transposed input without bias runs as a batched product, which as such does not count.
    mixer = Functional(lambda x, w: F.linear(x.transpose(1, 2), w), torch.randn(5, 7))

    assert macs(mixer, torch.randn(3, 7, 4)) == 4 * 35


@pytest.mark.parametrize("fused", [True, False])
def test_attention_counts_its_projections_but_not_its_products(fused, request):
    request.addfinalizer(lambda: torch.backends.mha.set_fastpath_enabled(True))
    torch.backends.mha.set_fastpath_enabled(fused)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    assert macs(layer, torch.randn(3, 7, 32)) == 7 * (4 * 32 * 32 + 2 * 32 * 64)
    assert torch.backends.mha.get_fastpath_enabled() is fused


def test_macs_agree_with_torchs_flop_counter_on_a_network():
    network, images = resnet20(shortcut="B").eval(), torch.randn(2, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        network(images)

    assert macs(network, images) * 2 * 2 == counter.get_total_flops()


def test_compiled_model_counts_like_its_original():
    network, images = digits_resnet(), torch.randn(2, 1, 8, 8)

    assert macs(torch.compile(network, backend="eager"), images) == macs(network, images)


def test_counts_of_parameters_nonzeros_and_bytes():
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.bias.fill_(1)
    layer.bias.requires_grad_(False)
    model = nn.Sequential(layer, nn.Linear(3, 4), layer, nn.BatchNorm1d(3), nn.Linear(3, 2, dtype=torch.float64))
    model[1].weight.data.fill_(1)
    model[1].bias.data.fill_(1)
    model[4].to(torch.float32).weight.data.fill_(2)
    model[4].bias.data.fill_(2)
    report = profile(model, torch.randn(5, 4), latency_seconds=0)

    # 4x3 + 3 (used twice), 3x4 + 4, batch norm 3 + 3, 3x2 + 2; a row of 4 and batch norm's shift of 3 are zero.
    assert report.parameters == 15 + 16 + 6 + 8
    assert report.nonzeros == report.parameters - 4 - 3
    # Buffers: two float vectors of 3 and one int64 counter.
    assert report.bytes == 4 * report.parameters + 4 * 6 + 8
    assert report.macs == 12 + 12 + 12 + 6
    assert (report.batch_size, report.threads) == (5, torch.get_num_threads())


def test_bytes_follow_the_precision():
    single = profile(nn.Linear(8, 8), torch.randn(1, 8), latency_seconds=0)
    half = profile(nn.Linear(8, 8, dtype=torch.bfloat16), torch.randn(1, 8, dtype=torch.bfloat16), latency_seconds=0)

    assert (single.bytes, half.bytes) == (4 * 72, 2 * 72)


def test_lightning_module_costs_what_its_network_costs():
    network, images = digits_resnet(), torch.randn(4, 1, 8, 8)
    bare, module = (profile(m, images, latency_seconds=0) for m in (network, ImageClassifier(network, 10)))

    assert (bare.parameters, bare.nonzeros, bare.macs, bare.bytes) == (
        module.parameters,
        module.nonzeros,
        module.macs,
        module.bytes,
    )


def test_several_inputs_are_positional_arguments():
    bilinear = Functional(lambda x, y, w: F.linear(x, w) + y, torch.randn(5, 7))

    assert macs(bilinear, (torch.randn(2, 7), torch.randn(2, 5))) == 35


class Slow(nn.Module):
    """Sleeps 5 ms and records the mode of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_inference_mode_enabled()))
        time.sleep(0.005)
        return x


def test_latency_is_the_time_of_a_pass_in_evaluation_and_inference_mode_in_milliseconds():
    model = Slow()

    assert 5 <= profile(model, torch.zeros(1), latency_seconds=0).latency_ms < 50
    assert len(model.calls) == 1 + 1 + 9  # counted, warmed up, measured
    assert set(model.calls) == {(False, True)}


class Named(nn.Module):
    """Writes its name into a list at each call, and moves a clock on, by given seconds in turn."""

    def __init__(self, name: str, calls: list[str], clock: list[float], seconds: tuple[float, ...]) -> None:
        super().__init__()
        self.name, self.calls, self.clock, self.seconds = name, calls, clock, seconds

    def forward(self, x: Tensor) -> Tensor:
        self.clock[0] += self.seconds[self.calls.count(self.name) % len(self.seconds)]
        self.calls.append(self.name)
        return x


def test_median_and_quartiles_are_those_of_the_passes(monkeypatch):
    clock, calls = [0.0], list[str]()
    monkeypatch.setattr(profiling, "perf_counter", lambda: clock[0])
    # One pass warms up, nine are measured (4, 8, 12 ms three times each), one is counted.
    models = [Named("a", calls, clock, (0.012, 0.004, 0.008)), Named("b", calls, clock, (0.005,))]

    costs, even = profile_all(models, torch.zeros(1), latency_seconds=0)

    quartiles = (costs.latency_low_ms, costs.latency_ms, costs.latency_high_ms)
    assert quartiles == pytest.approx(np.quantile([4, 8, 12] * 3, [0.25, 0.5, 0.75]))
    assert (even.latency_low_ms, even.latency_high_ms) == pytest.approx((5, 5))
    assert (costs.noisy, even.noisy) == (True, False)
    assert latencies_ms(models, (torch.zeros(1),), 0) == pytest.approx([8, 5])


@pytest.mark.parametrize(("seconds", "measured"), [((0.005,), 0.2), ((0.004, 0.012), 0.6)])
def test_latency_takes_the_time_it_is_given_and_three_times_that_while_it_is_noisy(monkeypatch, seconds, measured):
    clock, calls = [0.0], list[str]()
    monkeypatch.setattr(profiling, "perf_counter", lambda: clock[0])

    latencies_ms([Named("a", calls, clock, seconds)], (torch.zeros(1),), 0.2)

    # The warm-up is no part of it, and the last pass may end later.
    assert measured <= clock[0] - seconds[0] < measured + 0.013


def test_models_take_turns_in_an_order_that_changes():
    calls: list[str] = []
    latencies_ms([Named(name, calls, [0.0], (0.0,)) for name in "abc"], (torch.zeros(1),), 0.05)

    passes = calls[3:]  # without the warm-up
    rounds = ["".join(passes[start : start + 3]) for start in range(0, len(passes), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6


def test_pythons_random_state_stays_as_it_was():
    state = random.getstate()
    latencies_ms([nn.Identity(), nn.Identity()], (torch.zeros(1),), 0)
    assert random.getstate() == state


def test_models_whose_input_is_not_known_are_counted_and_not_run():
    calls: list[str] = []
    counted, model = (profile_all([net], None)[0] for net in (nn.Linear(4, 3), Named("a", calls, [0.0], (0.0,))))

    assert (counted.parameters, counted.bytes, counted.batch_size, model.parameters) == (15, 60, 0, 0)
    unknown = (counted.macs, counted.latency_ms, counted.latency_low_ms, counted.latency_high_ms)
    assert all(map(math.isnan, unknown))
    assert not counted.noisy
    assert calls == []


@pytest.mark.parametrize(("low", "high", "noisy"), [(1.0, 1.2, False), (1.0, 1.3, True), (2.1, 40.7, True)])
def test_noise_is_a_matter_of_the_quartiles(low, high, noisy):
    assert Profile(1, 1, 1, 4, low, low, high, 1, 1).noisy is noisy


class Stubborn(nn.Module):
    """Merges for good when it is switched to evaluation, draws random numbers, and keeps a frozen batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.merged = False
        self.norm = nn.BatchNorm1d(3).eval()
        self.linear = nn.Linear(3, 3)

    def train(self, mode: bool = True) -> "Stubborn":
        self.merged |= not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x) + torch.rand_like(x))


def test_model_and_random_state_come_back_unchanged():
    model = Stubborn()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()

    profile(model, torch.randn(4, 3, generator=torch.Generator()), latency_seconds=0)

    assert [m.training for m in (model, model.norm, model.linear)] == [True, False, True]
    assert not model.merged
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    model(torch.randn(4, 3)).sum().backward()


def test_model_comes_back_in_training_mode_when_its_forward_fails():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(4, 4))

    with pytest.raises(InputError, match=r"Sequential.forward to run on .* shape \(2, 3\), got .*mat1 and mat2"):
        profile(model, torch.randn(2, 3))
    assert all(m.training for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"x": torch.zeros(1, 3)}, "a tensor or a tuple of tensors, got dict"),
        ([torch.zeros(1, 3)], "got list"),
        ((torch.zeros(1, 3), 2), "got Tensor, int"),
        ((), "got an empty tuple"),
        (torch.tensor(1.0), r"batch axis of 1 or more, got shape \(\)"),
        (torch.zeros(0, 3), r"got shape \(0, 3\)"),
    ],
)
@pytest.mark.parametrize("measure", [profile, macs])
def test_example_input_of_another_kind_is_refused(measure, example, message):
    with pytest.raises(InputError, match=message):
        measure(nn.Linear(3, 3), example)
