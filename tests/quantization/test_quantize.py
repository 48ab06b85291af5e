"""What a quantized network computes, compared with the same network written out with torch's own fake-quant."""

import copy
import pickle
from typing import Any

import pytest
import torch
from quantization_networks import IMAGES, Branches, branches
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from lightning_prune.errors import InputError
from lightning_prune.export.int8 import integer_network
from lightning_prune.graph.interception import interceptor_of, suspended
from lightning_prune.models.resnet import resnet20
from lightning_prune.quantization.quantization_interceptor import QuantizationInterceptor, quantization_of
from lightning_prune.quantization.quantize import dequantize, quantize, release
from lightning_prune.quantization.quantizers.affine import Affine, AffineActivation
from lightning_prune.quantization.quantizers.bwn import BWN
from lightning_prune.quantization.quantizers.lsq import LSQ
from lightning_prune.quantization.quantizers.xnor import XNOR
from lightning_prune.slimming.slim import slim


@pytest.fixture
def network() -> Branches:
    return branches()


def calibrated(network: nn.Module, quantizer: Any, images: Tensor = IMAGES, **options: Any) -> QuantizationInterceptor:
    quantization = quantize(network, images[:2], quantizer, **options)
    for activation in quantization.rounding.activations().values():
        activation.observing = True
    with torch.no_grad():
        network(images)
    for activation in quantization.rounding.activations().values():
        activation.observing, activation.quantizing = False, True
    return quantization


# What it computes -----------------------------------------------------------------------------------------------------


def test_parametrized_weights_are_rounded_as_they_are_in_use() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    parametrize.register_parametrization(layer[0], "weight", Double())
    quantize(layer, IMAGES, Affine(activation_bits=32))
    stored = layer[0].weight.detach()
    scale = stored.abs().amax((1, 2, 3)) / 127
    weight = torch.fake_quantize_per_channel_affine(stored, scale, torch.zeros(4), 0, -127, 127)
    assert torch.equal(layer(IMAGES), F.relu(F.conv2d(IMAGES, weight, layer[0].bias)))
    with pytest.raises(InputError, match="made from others"):
        dequantize(layer)


def by_hand(network: Branches, quantization: QuantizationInterceptor, x: Tensor) -> Tensor:
    """The network with torch's own fake-quant, in eval mode."""

    def act(x: Tensor, name: str) -> Tensor:
        scale, zero_point, low, high = quantization.rounding.activations()[name].grid()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, low, high)

    def weight(layer: nn.Module) -> Tensor:
        scale = layer.weight.detach().abs().flatten(1).amax(1) / 127
        return torch.fake_quantize_per_channel_affine(layer.weight, scale, torch.zeros(len(scale)), 0, -127, 127)

    n = network
    x = act(x, "stem")
    x = act(F.relu(n.norm1(F.conv2d(x, weight(n.stem), n.stem.bias, padding=1))), "relu/relu/0")
    y = act(n.norm2(F.conv2d(x, weight(n.inner), padding=1)), "norm2/batch_norm/0")
    y = act(F.relu(y + x), "relu/relu/1")
    side = act(F.conv2d(y, weight(n.side), n.side.bias), "relu/relu/1")
    y = torch.cat([F.max_pool2d(y, 2), F.max_pool2d(side, 2)], 1)
    y = act(F.adaptive_avg_pool2d(y, 1), "/adaptive_avg_pool2d/0")
    return F.linear(y.flatten(1), weight(n.fc), n.fc.bias)


def test_outputs_and_gradients_are_those_of_torchs_fake_quant(network: Branches) -> None:
    plain = copy.deepcopy(network)
    quantization = calibrated(network, Affine())
    images = 1.2 * IMAGES  # some numbers out of range
    ours, theirs = network(images), by_hand(plain, quantization, images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    ours.square().sum().backward()
    theirs.square().sum().backward()
    for name, parameter in plain.named_parameters():
        if not name.startswith("aux"):
            torch.testing.assert_close(network.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5)
    assert (ours - plain(images)).abs().max() > 1e-3


def test_without_gradients_it_computes_with_the_integers_of_the_file(network: Branches) -> None:
    quantization = calibrated(network, Affine())
    plain = copy.deepcopy(network)
    release(plain)
    with torch.no_grad():
        exact, rounded = by_hand(plain, quantization, IMAGES), network(IMAGES)
        integers = integer_network(network)(IMAGES)
    assert torch.equal(rounded, integers)
    assert torch.equal(network(IMAGES), network(IMAGES))
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05 * float(exact.abs().max()))


def test_one_scale_a_layer_is_that_of_the_weight_with_batch_norm_folded_in(network: Branches) -> None:
    plain = copy.deepcopy(network)
    quantize(network, IMAGES, Affine(activation_bits=32, per_channel=False))
    assert torch.equal(network.stem(IMAGES), plain.stem(IMAGES))  # rounded is only what the network's forward runs
    norm = plain.norm1
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    folded = plain.stem.weight.detach() * factor[:, None, None, None]
    step = folded.abs().max() / 127
    bias = (plain.stem.bias - norm.running_mean) * factor + norm.bias
    expected = F.conv2d(IMAGES, (folded / step).round() * step, bias, padding=1)
    seen: list[Tensor] = []
    network.norm1.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    network(IMAGES)
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_code_that_only_trains_does_not_shift_the_names_of_calls(network: Branches) -> None:
    quantization = calibrated(network, Affine())
    before = {name: float(activation.limit()) for name, activation in quantization.rounding.activations().items()}
    network.train()
    for activation in quantization.rounding.activations().values():
        activation.observing = True
    network(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    after = {name: float(activation.limit()) for name, activation in quantization.rounding.activations().items()}
    assert after["stem"] == pytest.approx(before["stem"], rel=1e-6)
    assert all(after[name] < 5 * before[name] for name in before)


def test_code_that_only_trains_in_the_same_place_is_refused() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                x = x + 0.01 * torch.randn_like(x)
            y = self.a(x)
            return y + self.b(y)

    network = Noisy().eval()
    calibrated(network, Affine())
    network(IMAGES)
    with pytest.raises(InputError, match="expected 1 calls of add in Noisy as in evaluation, got 2"):
        network.train()(IMAGES)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_refused(reentrant: bool) -> None:
    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Conv2d(3, 4, 1), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return self.body(self.stem(x))
            return checkpoint(self.body, self.stem(x), use_reentrant=reentrant)

    network = Saving()
    quantize(network, IMAGES, Affine())
    with pytest.raises(InputError, match="expected a network without activation checkpointing, got body"):
        network(IMAGES).sum().backward()


def test_the_part_that_holds_all_layers_is_what_is_quantized() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.ModuleDict({"inside": resnet20()})

        def forward(self, x: Tensor) -> Tensor:
            return self.net["inside"](x).softmax(1)

    model = Around().eval()
    images = torch.randn(2, 3, 32, 32)
    calibrated(model, Affine(4, 4), images)
    plain = copy.deepcopy(model)
    release(plain)
    inside = model.net["inside"]
    assert not torch.equal(inside(images), plain.net["inside"](images))
    with torch.no_grad():
        assert torch.equal(model(images), inside(images).softmax(1))


def test_tensors_are_left_alone_until_they_are_turned_on(network: Branches) -> None:
    plain = copy.deepcopy(network)
    quantize(network, IMAGES, Affine(weight_bits=32))
    assert torch.equal(network(IMAGES), plain(IMAGES))


def test_layers_by_pattern_and_edges() -> None:
    model = resnet20()
    quantization = quantize(model, torch.zeros(2, 3, 32, 32), LSQ(3, 3), {"layer1.*": None, "layer2.0.*": LSQ(2, 2)})
    names = list(quantization.layer_calls)
    assert names[0] == "conv1"
    assert names[-1] == "fc"
    assert not any(name.startswith("layer1") for name in names)
    levels = {
        name: len(quantization.rounding.layer(name).rounded(quantization.stored(f"{name}.weight")).unique())
        for name in names
    }
    assert 8 < levels["conv1"] <= 256
    assert 8 < levels["fc"] <= 256
    assert levels["layer2.0.conv1"] <= 4 < levels["layer3.0.conv1"] <= 8
    with pytest.raises(InputError, match="got no match among layer1"):
        quantize(resnet20(), torch.zeros(2, 3, 32, 32), Affine(), {"layer9.*": None})
    with pytest.raises(InputError, match="expected layers to quantize"):
        quantize(nn.Sequential(nn.Flatten()), IMAGES, Affine())


def test_binary_inputs_take_the_place_of_relus() -> None:
    torch.manual_seed(0)
    conv1, norm, conv2, fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, bias=False), nn.Linear(5, 2)
    model = nn.Sequential(conv1, norm, nn.ReLU(), conv2, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), fc).eval()
    quantization = calibrated(model, XNOR())
    assert list(quantization.layer_calls) == ["3"]  # the first and the last layer are float, as in the paper
    binary = conv2.weight.sign() * conv2.weight.abs().mean((1, 2, 3), keepdim=True)
    signs = torch.where(norm(conv1(IMAGES)) >= 0, 1.0, -1.0)
    expected = fc(F.relu(F.conv2d(signs, binary)).mean((2, 3)))
    torch.testing.assert_close(model(IMAGES), expected)


# A module like any other ----------------------------------------------------------------------------------------------


def test_stored_names_stay_and_a_plain_state_loads(network: Branches) -> None:
    plain = copy.deepcopy(network)
    calibrated(network, LSQ())
    assert list(network.state_dict()) == list(plain.state_dict())
    extra = {name for name, _ in network.named_parameters()} - {name for name, _ in plain.named_parameters()}
    assert extra
    assert all(name.startswith("_quantization.") for name in extra)
    assert str(network.load_state_dict(plain.state_dict())) == "<All keys matched successfully>"
    missing = {name: value for name, value in plain.state_dict().items() if name != "fc.bias"}
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"fc.bias\"\. $"):
        network.load_state_dict(missing)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_the_same_with_its_own_numbers(network: Branches, copied: Any) -> None:
    quantization = calibrated(network, LSQ())
    twin = copied(network)
    expected = network(IMAGES)
    assert torch.equal(twin(IMAGES), expected)
    for parameter in quantization.parameters():
        parameter.data.mul_(0.5)
    for parameter in network.parameters():
        parameter.data.mul_(0.5)
    assert torch.equal(twin(IMAGES), expected)


def test_own_state_brings_everything_back(network: Branches) -> None:
    plain = copy.deepcopy(network)
    quantization = calibrated(network, LSQ())
    twin = quantize(plain, IMAGES, LSQ())
    twin.rounding.restore(quantization.rounding.state_dict())
    twin.rounding.quantizing = True
    assert torch.equal(plain(IMAGES), network(IMAGES))
    other = quantize(copy.deepcopy(dequantize(network)), IMAGES, LSQ(), {"side": None})
    with pytest.raises(InputError, match="quantized in the same way; only the checkpoint has layers"):
        other.rounding.restore(quantization.rounding.state_dict())


def test_compiled_it_computes_the_same(network: Branches) -> None:
    calibrated(network, Affine())
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(IMAGES), network(IMAGES), rtol=0, atol=1e-6)


def test_release_leaves_no_trace(network: Branches) -> None:
    plain = copy.deepcopy(network)
    before = {name: set(vars(module)) for name, module in network.named_modules()}
    calibrated(network, Affine())
    release(network)
    assert interceptor_of(network) is None
    assert quantization_of(network) is None
    assert {name: set(vars(module)) for name, module in network.named_modules()} == before
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
    assert torch.equal(network(IMAGES), plain(IMAGES))


@pytest.mark.parametrize("quantizer", [Affine(), Affine(4, 4, per_channel=False), LSQ(), BWN()])
def test_dequantized_it_is_a_plain_network_with_the_rounded_weights(network: Branches, quantizer: Any) -> None:
    quantize(network, IMAGES, quantizer)
    plain = dequantize(network)
    assert interceptor_of(plain) is None
    assert list(plain.state_dict()) == list(network.state_dict())
    assert torch.equal(plain(IMAGES), network(IMAGES))
    assert not torch.equal(plain.inner.weight, network.inner.weight)
    with pytest.raises(InputError, match="expected a quantized Branches, got one that is not"):
        dequantize(plain)


def test_suspended_it_is_the_float_network(network: Branches) -> None:
    plain = copy.deepcopy(network)
    calibrated(network, Affine())
    with suspended():
        assert torch.equal(network(IMAGES), plain(IMAGES))
    assert not torch.equal(network(IMAGES), plain(IMAGES))


def test_an_exception_within_leaves_it_working(network: Branches) -> None:
    calibrated(network, Affine())
    expected = network(IMAGES)
    with pytest.raises(RuntimeError):
        network(IMAGES[:, :2])
    assert torch.equal(network(IMAGES), expected)


def test_the_slim_network_is_quantized_alike() -> None:
    torch.manual_seed(0)
    model = resnet20().eval()
    images = torch.randn(8, 3, 32, 32)
    for block in (model.layer1[0], model.layer2[1], model.layer3[2]):
        for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
            tensor.data[: len(tensor) // 2] = 0
    quantization = calibrated(model, Affine(), images)
    small = slim(model, images[:2])
    assert small.layer1[0].conv1.weight.shape[0] == 8
    assert quantization_of(small) is not None
    assert quantization_of(small) is not quantization
    masked, slimmed = model(images), small(images)
    with suspended():
        torch.testing.assert_close(small(images), model(images), rtol=0, atol=1e-4)
    # Sums of another order fall on the other side of a few roundings.
    assert (masked - slimmed).abs().max() < 0.03 * masked.abs().max()


def test_a_network_that_has_diverged_is_named(network: Branches) -> None:
    quantization = calibrated(network, Affine())
    quantization.check()
    activation = quantization.rounding.activations()["relu/relu/0"]
    assert isinstance(activation, AffineActivation)
    activation.high.fill_(torch.nan)
    with pytest.raises(InputError, match="expected a range of the numbers in relu/relu/0, got NaN"):
        quantization.check()
    network.inner.weight.data[0] = torch.nan
    with pytest.raises(InputError, match="expected finite weights in inner"):
        quantization.check()
