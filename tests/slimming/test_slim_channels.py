"""Which channels go when a model is slimmed, and which stay: what operators and code do to them, and what is dead."""

import logging

import pytest
import torch
from networks import IMAGE, Net, conv, conv_bn, difference, mask, randomise, shapes
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.models.resnet import resnet20
from lightning_prune.slimming import couple
from lightning_prune.slimming.slim import slim

# Operators that cannot be followed ------------------------------------------------------------------------------------


def attention(x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    return F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(x.shape)


FIXED = {
    "softmax": lambda x: x.softmax(1),
    "layer norm": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2),
    "group norm": lambda x: F.group_norm(x, 2),
    "matmul": lambda x: (torch.ones(8, 8) @ x.flatten(2)).view(x.shape),
    "attention": attention,
    "sort": lambda x: x.sort(dim=1).values,
    "cumsum": lambda x: x.cumsum(1),
    "local response norm": lambda x: F.local_response_norm(x, 3),
    "mean over channels": lambda x: x * x.mean(1, keepdim=True),
    "max over channels": lambda x: x - x.max(1, keepdim=True)[0],
    "roll": lambda x: x.roll(1, dims=1),
    "shift": lambda x: F.pad(x, (0, 0, 0, 0, -1, 1)),
    "select": lambda x: x + x[:, :1],
    "indices": lambda x: x[:, [7, 0, 1, 2, 3, 4, 5, 6]],
    "einsum": lambda x: torch.einsum("nchw,dc->ndhw", x, torch.ones(8, 8)),
    "position in channel": lambda x: x + torch.arange(8.0).view(8, 1, 1),
    "convolution over channels": lambda x: F.conv1d(x.flatten(2).transpose(1, 2), torch.ones(64, 64, 1)).view(x.shape),
    "pooling over channels": lambda x: F.avg_pool1d(x.flatten(2).mT, 3, 1, 1).mT.reshape(x.shape),
    "reflection over channels": lambda x: F.pad(x.flatten(2).mT, (1, 0), mode="reflect")[..., :8].mT.reshape(x.shape),
    "written to": lambda x: x.index_fill(1, torch.tensor([1]), 2.0),
}


@pytest.mark.parametrize("name", FIXED)
def test_channels_that_cannot_be_followed_stay_and_the_rest_goes(name):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.third(FIXED[name](net.second(F.relu(net.first(x)))))))

    model = Net(forward, first=conv(3, 8), second=conv(8, 8), third=conv(8, 8), last=conv(8, 4))
    inputs = IMAGE()
    groups = couple(model, inputs).groups()
    assert [group.layers for group in groups] == [["first"], ["third"]]
    mask(model, groups)
    with torch.no_grad():
        model.second.weight[2] = 0
        model.second.bias[2] = 0
    small = slim(model, inputs)
    assert difference(model, small, inputs) < 1e-5
    widths = {name: shape[:2] for name, shape in shapes(small).items() if name.endswith("weight")}
    assert widths == {"first.weight": (4, 3), "second.weight": (8, 4), "third.weight": (4, 8), "last.weight": (4, 4)}


FOLLOWED = {
    "flip": lambda x: x.flip(1),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2).repeat(1, 4, 1, 1)[:, :, ::2, ::2],
    "halves": lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    "half of its width": lambda x: torch.cat([x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], 1),
    "every second": lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1),
    "gate": lambda x: F.glu(x.repeat(1, 2, 1, 1), 1),
    "stack": lambda x: torch.stack([x, torch.expm1(x)], -1).sum(-1),
    "unbind": lambda x: sum(x.unbind(-1)).unsqueeze(-1).expand_as(x),
    "positions of two groups": lambda x: x.view(len(x), 2, x.shape[1] // 2, 8, 8).flip(2).flatten(1, 2),
    "patches": lambda x: F.fold(F.unfold(x, 2, stride=2), 8, 2, stride=2),
    "einsum": lambda x: torch.einsum("nchw, nchw -> nchw", x, x),
    "softmax over positions": lambda x: x * x.flatten(2).softmax(-1).view(x.shape),
    "sum of squares": lambda x: x * x.square().sum(1, keepdim=True),
    "roll": lambda x: x.roll((1, 2), dims=(2, 3)),
    "minimum of two": lambda x: torch.minimum(x, x.mean((2, 3), keepdim=True)),
}
"""Operators through which all eight channels are followed."""


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_are_followed(name):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.second(FOLLOWED[name](net.first(x)))))

    model, inputs = Net(forward, first=conv(3, 8), second=conv(8, 8), last=conv(8, 4)), IMAGE()
    mask(model, couple(model, inputs).groups())
    small = slim(model, inputs)
    widths = {name: shape[:2] for name, shape in shapes(small).items() if name.endswith("weight")}
    assert widths == {"first.weight": (4, 3), "second.weight": (4, 4), "last.weight": (4, 4)}
    assert max(difference(model, small, IMAGE()) for _ in range(3)) < 1e-5


# Code that relies on widths -------------------------------------------------------------------------------------------


RELYING = {
    "view": lambda net, x: x.view(len(x), 8, 64).view(x.shape),
    "slice": lambda net, x: torch.cat([x[:, 5:], x[:, :5]], 1),
    "split": lambda net, x: torch.cat(torch.split(x, [3, 5], dim=1)[::-1], 1),
    "groups": lambda net, x: F.conv2d(x, net.depthwise, groups=8),
    # With half of the channels this runs, and gives something else.
    "shuffle": lambda net, x: x.view(len(x), x.shape[1] // 4, 4, 8, 8).transpose(1, 2).reshape(x.shape),
    "padding": lambda net, x: F.pad(x, (0, 0, 0, 0, 0, 12 - x.shape[1]))[:, :8],
    "assertion": lambda net, x: x if x.shape[1] == 8 else x[:0],
}


@pytest.mark.parametrize("name", RELYING)
def test_code_that_relies_on_a_width_keeps_it(name):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(F.relu(net.after(RELYING[name](net, F.relu(net.mid(F.relu(net.first(x))))))))

    model = Net(
        forward, first=conv(3, 8), mid=conv(8, 8), after=conv(8, 8), last=conv(8, 4),
        depthwise=nn.Parameter(torch.randn(8, 1, 1, 1)),
    )  # fmt: skip
    inputs = IMAGE()
    with torch.no_grad():
        for layer in (model.first, model.mid, model.after):
            for tensor in (layer.weight, layer.bias):
                tensor[[2, 3, 6, 7]] = 0
        model.depthwise[[2, 3, 6, 7]] = 0
    small = slim(model, inputs)
    assert difference(model, small, inputs) < 1e-5
    widths = [shapes(small)[f"{name}.weight"][0] for name in ("first", "mid", "after", "last")]
    assert widths == [4, 8, 4, 4]


def test_code_that_relies_on_a_width_is_named_in_the_log(caplog):
    def forward(net: Net, x: Tensor) -> Tensor:
        return net.head(net.features(x).view(-1, 8 * 64))

    model = Net(forward, features=nn.Sequential(conv_bn(3, 8), conv_bn(8, 8)), head=nn.Linear(512, 3))
    inputs = IMAGE()
    mask(model, couple(model, inputs).groups())
    with caplog.at_level(logging.WARNING, "lightning_prune"):
        small = slim(model, inputs)
    assert "kept the masked channels of features.1.0: the code of Net relies on their number" in caplog.text
    assert shapes(small)["features.1.0.weight"] == (8, 4, 3, 3)


# What is dead and what is not -----------------------------------------------------------------------------------------


def test_filter_without_its_shift_is_not_dead():
    # gamma 0.8, beta 0.05, mean -0.5 and variance 0.5 make 0.05 + 0.8 * 0.5 / sqrt(0.50001) = 0.61568 of a zero filter.
    model = nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4, bias=False)).eval()
    norm = model[1]
    with torch.no_grad():
        model[0].weight[5] = 0
        norm.weight[5], norm.bias[5], norm.running_mean[5], norm.running_var[5] = 0.8, 0.05, -0.5, 0.5
    inputs = IMAGE()
    with torch.no_grad():
        assert torch.allclose(model[:3](inputs)[:, 5], torch.tensor(0.61568), atol=1e-5)
    small = slim(model, inputs)
    assert shapes(small)["0.weight"][0] == 8
    assert difference(model, small, inputs) == 0
    with torch.no_grad():
        norm.weight[5] = norm.bias[5] = 0
    small = slim(model, inputs)
    assert shapes(small)["0.weight"][0] == 7
    assert difference(model, small, inputs) < 1e-6


@pytest.mark.parametrize("rest", ["bias", "shift", "next column", "scale"])
def test_what_keeps_a_zero_filter_alive(rest):
    model = randomise(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4)))
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias, model[1].weight, model[1].bias):
            tensor[5] = 0
        if rest == "bias":
            model[0].bias[5] = 1.0  # times a scale of zero
        if rest == "shift":
            model[1].bias[5] = 1.0
        if rest == "scale":
            model[1].weight[5] = 1.0  # of what is zero minus the running mean
        if rest == "next column":
            model[0].weight[5] = model[1].weight[5] = model[1].bias[5] = 1.0
            model[3].weight[:, 5] = 0  # nobody reads it
    small = slim(model, IMAGE())
    assert shapes(small)["0.weight"][0] == {"bias": 7, "shift": 8, "scale": 8, "next column": 7}[rest]
    assert difference(model, small, IMAGE()) < 1e-6


def test_masked_filter_behind_a_batch_norm_without_affine_map_goes_when_its_mean_is_zero():
    model = nn.Sequential(conv(3, 8, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(), conv(8, 4))
    model[1].running_mean.normal_()
    with torch.no_grad():
        model[0].weight[[1, 2]] = 0
    model[1].running_mean[2] = 0
    small = slim(model, IMAGE())
    assert shapes(small)["1.running_mean"] == (7,)
    assert small[1].num_features == 7
    assert difference(model, small, IMAGE()) < 1e-6


def test_depthwise_filter_that_is_zero_does_not_read_its_channel():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8, groups=8), nn.ReLU(), conv(8, 4))
    with torch.no_grad():
        model[2].weight[3] = model[2].bias[3] = 0
    small = slim(model, IMAGE())
    assert (shapes(small)["0.weight"][0], small[2].groups) == (7, 7)
    assert difference(model, small, IMAGE()) < 1e-5


def test_zero_channel_that_is_written_to_through_a_view_is_alive(caplog):
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.first(x)
        part = x[:, :, 1:].flatten(2, 2)
        part += 1.0
        return net.last(x)

    model = Net(forward, first=conv(3, 8), last=conv(8, 4))
    mask(model, couple(model, IMAGE()).groups())
    small = slim(model, IMAGE())
    assert shapes(small)["first.weight"][0] == 8
    assert "relies on" not in caplog.text
    assert difference(model, small, IMAGE()) == 0


def test_index_buffer_that_chooses_from_two_tensors():
    def forward(net: Net, x: Tensor) -> Tensor:
        a, b = net.a(x), net.b(x)
        return net.last(a.index_select(1, net.index) + b.index_select(1, net.index)) + net.all_of_a(a)

    model = Net(forward, a=conv(3, 6), b=conv(3, 6), all_of_a=conv(6, 4), last=conv(3, 4))
    model.register_buffer("index", torch.tensor([1, 3, 4]))
    with torch.no_grad():
        for channels, layer in (([0, 3], model.a), ([3], model.b)):
            layer.weight[channels] = 0
            layer.bias[channels] = 0
    small = slim(model, IMAGE())
    assert difference(model, small, IMAGE()) < 1e-5
    assert [shapes(small)[name][0] for name in ("a.weight", "b.weight", "index")] == [4, 4, 2]
    assert small.index.tolist() == [0, 2]


def test_stream_channel_lives_as_long_as_one_layer_writes_to_it():
    model = randomise(resnet20(shortcut="B"))
    stream = [(model.conv1, model.bn1)] + [(block.conv2, block.bn2) for block in model.layer1]
    inputs = IMAGE()
    with torch.no_grad():
        for layer, norm in stream[:-1]:
            layer.weight[3] = norm.weight[3] = norm.bias[3] = 0
        assert shapes(slim(model, inputs))["conv1.weight"][0] == 16
        layer, norm = stream[-1]
        layer.weight[3] = norm.weight[3] = norm.bias[3] = 0
    small = slim(model, inputs)
    assert shapes(small)["conv1.weight"][0] == 15
    assert difference(model, small, inputs) < 1e-5


def test_padded_shortcut_reads_the_right_channels_after_slimming():
    model = randomise(resnet20())
    inputs = IMAGE()
    streams = {
        # Channel i of 16 is i + 8 of 32 and i + 24 of 64; what faces padding has no source.
        (0, 5): [(model.conv1, model.bn1)] + [(block.conv2, block.bn2) for block in model.layer1],
        (8, 13, 2): [(block.conv2, block.bn2) for block in model.layer2],
        (24, 29, 18, 60): [(block.conv2, block.bn2) for block in model.layer3],
    }
    with torch.no_grad():
        for channels, layers in streams.items():
            for layer, norm in layers:
                layer.weight[list(channels)] = 0
                norm.weight[list(channels)] = norm.bias[list(channels)] = 0
    small = slim(model, inputs)
    widths = [shapes(small)[f"{name}.weight"][0] for name in ("conv1", "layer2.0.conv2", "layer3.0.conv2")]
    assert widths == [14, 29, 60]
    # 1, 2, 3, 4, 6, ... are now 0, 1, 2, 3, 4, ...; 14 is the zero channel. Seven edges are left before, eight behind.
    assert small.layer2[0].downsample.source.tolist() == [14] * 7 + [*range(14)] + [14] * 8
    assert difference(model, small, inputs) < 1e-5


def test_hidden_units_of_linear_layers_go():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 20), nn.ReLU(), nn.Linear(20, 12), nn.GELU(), nn.Linear(12, 3))
    with torch.no_grad():
        model[1].weight[:7] = 0
        model[1].bias[:7] = 0
        model[5].weight[:, 2:5] = 0
    small = slim(model, IMAGE())
    assert [tuple(layer.weight.shape) for layer in (small[1], small[3], small[5])] == [(13, 192), (9, 13), (3, 9)]
    assert (small[3].in_features, small[3].out_features) == (13, 9)
    assert difference(model, small, IMAGE()) < 1e-5


def test_hidden_units_of_a_transformer_go():
    model = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    with torch.no_grad():
        model.linear1.weight[3:9] = 0
        model.linear1.bias[3:9] = 0
    inputs = torch.randn(2, 5, 8)
    small = slim(model, inputs)
    assert shapes(small)["linear1.weight"] == (10, 8)
    assert difference(model, small, inputs) < 1e-5


def test_one_channel_stays_where_all_are_masked():
    model = randomise(nn.Sequential(conv_bn(3, 8), conv_bn(8, 8), conv(8, 4)))
    for parameter in model[1].parameters():
        nn.init.zeros_(parameter)
    small = slim(model, IMAGE())
    # The layer before goes down to one channel too, because nothing reads the others.
    assert [shapes(small)[name][:2] for name in ("0.0.weight", "1.0.weight", "2.weight")] == [(1, 3), (1, 1), (4, 1)]
    assert difference(model, small, IMAGE()) < 1e-6


def test_model_of_zeros_keeps_one_channel_everywhere():
    model = resnet20()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    small = slim(model, IMAGE())
    assert all(min(shape, default=1) >= 1 for shape in shapes(small).values())
    assert small(IMAGE()).shape == (2, 10)
