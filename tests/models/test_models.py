from collections.abc import Callable
from functools import partial

import pytest
import torch
from networks import difference, mask, randomise
from torch import nn
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.models.densenet import DenseLayer, densenet40
from lightning_prune.models.digits_resnet import digits_resnet
from lightning_prune.models.googlenet import googlenet
from lightning_prune.models.mobilenet_v2 import mobilenet_v2
from lightning_prune.models.resnet import PaddedShortcut, ResNet, resnet20, resnet32, resnet44, resnet56, resnet110
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.reporting.profiling import macs
from lightning_prune.slimming import couple
from lightning_prune.slimming.slim import slim

imagenet_mobilenet = partial(mobilenet_v2, 1000, stem_stride=2)
mlp_vgg = partial(vgg16_bn, head="mlp")


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("build", "resolution", "expected_macs", "expected_parameters"),
    [
        (resnet20, 32, 40_551_040, 269_722),
        (resnet32, 32, 68_862_592, 464_154),
        (resnet44, 32, 97_174_144, 658_586),
        (resnet56, 32, 125_485_696, 853_018),
        (resnet110, 32, 252_887_680, 1_727_962),
        (vgg16_bn, 32, 313_201_664, 14_724_042),
        (mlp_vgg, 32, 313_463_808, 14_991_946),
        (imagenet_mobilenet, 224, 300_774_272, 3_504_872),
    ],
)
def test_costs_are_the_published_integers(build, resolution, expected_macs, expected_parameters):
    network = build()

    assert size(network) == expected_parameters
    assert macs(network, torch.zeros(1, 3, resolution, resolution)) == expected_macs


def test_projection_shortcuts_cost_two_1x1_convolutions_with_batch_norm():
    padded, projected = resnet20(shortcut="A"), resnet20(shortcut="B")
    images = torch.zeros(1, 3, 32, 32)

    assert size(projected) - size(padded) == (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert macs(projected, images) - macs(padded, images) == 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64


def test_digits_network_costs_what_its_layers_add_up_to():
    stem, fc = 64 * 9 * 16, 64 * 10
    stages = (64 * 9 * (16 * 16 + 16 * 16), 16 * (9 * (16 * 32 + 32 * 32) + 16 * 32), 4 * (9 * 3 * 64 * 32 + 32 * 64))

    assert macs(digits_resnet(), torch.zeros(1, 1, 8, 8)) == stem + sum(stages) + fc


@pytest.mark.parametrize(
    ("width_mult", "millions_of_macs"), [(1.4, 582), (0.75, 209), (0.5, 97), (0.35, 59)], ids=lambda value: str(value)
)
def test_mobilenet_widths_cost_what_the_authors_publish(width_mult, millions_of_macs):
    network = imagenet_mobilenet(width_mult=width_mult)

    assert round(macs(network, torch.zeros(1, 3, 224, 224)) / 1e6) == millions_of_macs


def test_cifar_mobilenet_changes_two_strides_and_no_weight():
    small, large = mobilenet_v2(num_classes=1000), imagenet_mobilenet()

    assert {k: v.shape for k, v in small.state_dict().items()} == {k: v.shape for k, v in large.state_dict().items()}
    strides = [
        (name, ours.stride[0], theirs.stride[0])
        for (name, ours), theirs in zip(small.named_modules(), large.modules(), strict=True)
        if isinstance(ours, nn.Conv2d) and ours.stride != theirs.stride
    ]
    assert strides == [("features.0.0", 1, 2), ("features.2.conv.1.0", 1, 2)]
    assert small.features(torch.zeros(1, 3, 32, 32)).shape[2:] == (4, 4)


def test_mobilenet_drops_features_only_in_the_imagenet_recipe():
    dropped = [
        [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
        for network in (imagenet_mobilenet(), mobilenet_v2())
    ]

    assert dropped == [[0.2], [0.0]]


def test_mobilenet_has_the_parameter_names_of_torchvision():
    names = list(imagenet_mobilenet().state_dict())

    assert len(names) == 314
    assert {"features.1.conv.1.weight", "features.17.conv.3.running_var", "features.18.0.weight"} < set(names)
    assert {"features.0.0.weight", "features.2.conv.0.0.weight", "classifier.1.bias"} < set(names)


@pytest.mark.parametrize(
    "build",
    [resnet20, partial(resnet20, shortcut="B"), vgg16_bn, mlp_vgg, mobilenet_v2, densenet40, googlenet],
)
def test_classes_channels_and_resolution_are_free(build):
    network = build(num_classes=7, in_channels=2)

    assert network(torch.randn(3, 2, 48, 40)).shape == (3, 7)


@pytest.mark.parametrize(("inside", "outside", "stride"), [(16, 32, 2), (32, 64, 2), (3, 8, 1), (5, 5, 3)])
def test_padded_shortcut_is_a_symmetric_pad_of_the_subsampled_input(inside, outside, stride):
    ours = torch.randn(2, inside, 8, 6, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    before = (outside - inside) // 2

    out = PaddedShortcut(inside, outside, stride)(ours)
    expected = F.pad(theirs[:, :, ::stride, ::stride], (0, 0, 0, 0, before, outside - inside - before))
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected.backward(gradient)

    assert torch.equal(out, expected)
    assert torch.equal(ours.grad, theirs.grad)


def test_padded_shortcut_follows_its_placement_when_channels_of_both_sides_go():
    shortcut, x = PaddedShortcut(4, 8, 2), torch.randn(2, 4, 6, 6)
    kept_in, kept_out = torch.tensor([0, 2, 3]), torch.tensor([0, 3, 4, 5])
    # Dense, outputs 2..5 read inputs 0..3. Output 3 read input 1, which is gone: a zero channel now, index 3.
    masked = x.clone()
    masked[:, 1] = 0
    expected = shortcut(masked)[:, kept_out]

    shortcut.source = torch.tensor([3, 3, 1, 2])

    assert torch.equal(shortcut(x[:, kept_in]), expected)


def test_shortcut_placement_travels_with_the_weights():
    state = resnet20().state_dict()

    assert state["layer2.0.downsample.source"].tolist() == [16] * 8 + list(range(16)) + [16] * 8


def test_stages_can_have_any_depth_and_width():
    network = ResNet((1, 2, 3), (6, 9, 10), num_classes=4)

    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [1, 2, 3]
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(resnet20, shortcut="C"), "expected shortcut, .* to be one of A, B, got 'C'"),
        (partial(ResNet, (1, 1, 1), (16, 8, 8)), r"expected out_channels >= 16 .* got 8"),
        (partial(vgg16_bn, head="conv"), "expected head to be one of linear, mlp, got 'conv'"),
        (partial(mobilenet_v2, stem_stride=3), "expected stem_stride, 1 for .* to be one of 1, 2, got 3"),
        (partial(mobilenet_v2, width_mult=0.0), r"expected width_mult in \(0, inf\), got 0.0"),
        (partial(densenet40, growth=0), "expected growth to be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_weight_averaging_leaves_padded_shortcuts_as_they_are():
    network = resnet20()
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9999)
    averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    for _ in range(3):
        averaged.update_parameters(network)
    assert torch.equal(averaged.module.layer3[0].downsample.source, network.layer3[0].downsample.source)


def without_batch_norm(network: nn.Module) -> int:
    return size(network) - sum(size(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("growth", [12, 5])
def test_densenet_costs_what_its_layers_add_up_to(growth):
    network, k = densenet40(growth=growth), growth
    # The inputs of a block's 12 layers are 90, 234 and 378 times k wide together, those of the transitions 14 and 26.
    blocks, transitions = [9 * k * width * k for width in (90, 234, 378)], [(14 * k) ** 2, (26 * k) ** 2]
    stem, fc, bn = 27 * 2 * k, 38 * k * 10, 90 + 234 + 378 + 14 + 26 + 38

    assert size(network) == stem + sum(blocks) + sum(transitions) + fc + 10 + 2 * bn * k
    expected = 1024 * (stem + blocks[0] + transitions[0]) + 256 * (blocks[1] + transitions[1]) + 64 * blocks[2] + fc
    assert macs(network, torch.zeros(1, 3, 32, 32)) == expected


# Input, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool channels of the nine modules, and the pixels of their maps.
INCEPTIONS = [
    (192, 64, 96, 128, 16, 32, 32, 1024),
    (256, 128, 128, 192, 32, 96, 64, 1024),
    (480, 192, 96, 208, 16, 48, 64, 256),
    (512, 160, 112, 224, 24, 64, 64, 256),
    (512, 128, 128, 256, 24, 64, 64, 256),
    (512, 112, 144, 288, 32, 64, 64, 256),
    (528, 256, 160, 320, 32, 128, 128, 256),
    (832, 256, 160, 320, 32, 128, 128, 64),
    (832, 384, 192, 384, 48, 128, 128, 64),
]


def test_googlenet_costs_what_its_layers_add_up_to():
    # The four 1x1 convolutions that read the input, one 3x3, and the two 3x3 that stand for a 5x5.
    weights = [i * (a + b + d + p) + 9 * (b * c + d * e + e * e) for i, a, b, c, d, e, p, _ in INCEPTIONS]
    filters = 192 + sum(a + b + c + d + 2 * e + p for _, a, b, c, d, e, p, _ in INCEPTIONS)
    stem, linear = 27 * 192, 1024 * 10

    assert filters == 7904
    assert size(googlenet()) == stem + sum(weights) + linear + 10 + 3 * filters  # bias, scale and shift
    expected = 1024 * stem + sum(w * row[-1] for w, row in zip(weights, INCEPTIONS, strict=True)) + linear
    assert macs(googlenet(), torch.zeros(1, 3, 32, 32)) == expected


@pytest.mark.parametrize(
    ("build", "unit", "expected_macs", "millions_of_parameters"),
    [(densenet40, 1e6, 282.92, 1.04), (googlenet, 1e9, 1.52, 6.15)],
    ids=["densenet40", "googlenet"],
)
def test_pruning_papers_start_from_these_costs(build, unit, expected_macs, millions_of_parameters):
    network = build()

    assert round(macs(network, torch.zeros(1, 3, 32, 32)) / unit, 2) == expected_macs
    assert round(without_batch_norm(network) / 1e6, 2) == millions_of_parameters


def test_dense_layer_passes_its_input_on_unchanged():
    x = torch.randn(2, 5, 6, 4)
    out = DenseLayer(5, 3)(x.clone())

    assert out.shape == (2, 8, 6, 4)
    assert torch.equal(out[:, :5], x)


@pytest.mark.parametrize("build", [densenet40, googlenet])
def test_gradients_reach_every_parameter_of_concatenating_networks(build):
    network = build()
    F.cross_entropy(network(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()

    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
    # Of every filter; batch norm takes a bias before it out again.
    assert all(
        (parameter.grad.flatten(1) != 0).any(1).all() for parameter in network.parameters() if parameter.ndim > 1
    )


def halved(build: Callable[[], nn.Module]) -> tuple[nn.Module, int]:
    """Return a network without half of each group's filters, and how many filters could have gone."""
    network, images = randomise(build()), torch.randn(2, 3, 8, 8)
    groups = couple(network, images).groups()
    mask(network, groups)
    small = slim(network, images)
    assert difference(network, small, images) < 1e-5
    return small, sum(group.size for group in groups)


def test_densenet_that_loses_half_of_every_convolution_is_the_one_of_half_the_growth():
    small, removable = halved(densenet40)

    assert removable == 24 + 36 * 12 + 168 + 312  # every filter there is
    expected = densenet40(growth=6).state_dict()
    assert {k: v.shape for k, v in small.state_dict().items()} == {k: v.shape for k, v in expected.items()}


def test_googlenet_that_loses_half_of_every_convolution_has_a_quarter_of_its_weights():
    small, removable = halved(googlenet)
    stem, linear, filters = 27 * 192, 1024 * 10, 7904
    inner = size(googlenet()) - stem - linear - 10 - 3 * filters

    assert removable == filters  # every one there is
    assert size(small) == inner // 4 + stem // 2 + linear // 2 + 10 + 3 * filters // 2
