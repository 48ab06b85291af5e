"""Which channels go together: by hand, against Torch-Pruning, and by the sizes that papers print."""

import copy

import pytest
import torch
import torch_pruning
from attention_networks import Biased, Gated, Language, Packed, words
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.models.mobilenet_v2 import mobilenet_v2
from lightning_prune.models.resnet import resnet20, resnet56, resnet110
from lightning_prune.models.vgg import vgg16_bn
from lightning_prune.pruning.counts import count
from lightning_prune.pruning.criteria.magnitude import Magnitude
from lightning_prune.pruning.granularities.channel import Channel
from lightning_prune.pruning.lowest import lowest
from lightning_prune.reporting.profiling import macs
from lightning_prune.slimming import Coupling, Group, couple, model_size
from lightning_prune.slimming.channels.removal import removal_of_units
from lightning_prune.slimming.slim import slim

IMAGE = (1, 3, 32, 32)


def conv(cin: int, cout: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, padding=kernel // 2, **options)


class DenseNet(nn.Module):
    """Two dense layers, a transition and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 12, bias=False)
        self.norm1, self.layer1 = nn.BatchNorm2d(12), conv(12, 8, bias=False)
        self.norm2, self.layer2 = nn.BatchNorm2d(20), conv(20, 8, bias=False)
        self.norm3, self.transition = nn.BatchNorm2d(28), conv(28, 14, 1, bias=False)
        self.norm4, self.head = nn.BatchNorm2d(14), nn.Linear(14 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.layer1(F.relu(self.norm1(x)))], 1)
        x = torch.cat([x, self.layer2(F.relu(self.norm2(x)))], 1)
        x = F.relu(self.norm4(self.transition(F.relu(self.norm3(x)))))
        return self.head(F.avg_pool2d(x, 8).flatten(1))


class Grouped(nn.Module):
    def __init__(self, cin: int, cout: int, groups: int) -> None:
        super().__init__()
        self.first, self.mid, self.last = conv(3, cin), conv(cin, cout, groups=groups), conv(cout, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.mid(F.relu(self.first(x)))))


def positions(group: Group, unit: int) -> dict[tuple[str, int], list[int]]:
    return {(member.name, member.dim): member.index[unit].tolist() for member in group.members}


def group_of(groups: list[Group], layer: str) -> Group:
    (found,) = [group for group in groups if layer in group.layers]
    return found


def random_units(groups: list[Group]) -> list[Tensor]:
    """Return a random half of the units of each group, as bool."""
    return [torch.randperm(group.size) < group.size // 2 for group in groups]


@torch.no_grad()
def mask(model: nn.Module, groups: list[Group], pruned: list[Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for group, units in zip(groups, pruned, strict=True):
        for member in group.members:
            if member.role not in ("reader", "other"):
                parameters[member.name].index_fill_(member.dim, member.index[units].reshape(-1), 0)


def lowest_norms(model: nn.Module, groups: list[Group], sparsity: float) -> list[Tensor]:
    weights = dict(model.named_parameters())
    units = [
        torch.cat([Channel(m.dim).units(weights[m.name])[m.index].flatten(1) for m in group.filters], 1).detach()
        for group in groups
    ]
    return [lowest([Magnitude()(own)], count(len(own), sparsity, "floor"))[0] for own in units]


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# By hand --------------------------------------------------------------------------------------------------------------


def test_a_channel_is_its_filter_what_belongs_to_it_and_who_reads_it():
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(8), nn.Flatten(), nn.Linear(128, 4))
    (group,) = couple(model, torch.zeros(IMAGE)).groups()
    assert group.size == 8
    assert group.layers == ["0"]
    assert {(member.name, member.dim): member.role for member in group.members} == {
        ("0.weight", 0): "filter",
        ("0.bias", 0): "bias",
        ("1.weight", 0): "scale",
        ("1.bias", 0): "shift",
        ("1.running_mean", 0): "other",
        ("1.running_var", 0): "other",
        ("5.weight", 1): "reader",
    }
    unit = positions(group, 3)
    assert unit.pop(("5.weight", 1)) == list(range(48, 64))  # 16 positions a channel
    assert set(map(tuple, unit.values())) == {(3,)}


def test_a_stream_is_written_and_read_by_all_its_blocks():
    group = group_of(couple(resnet20(shortcut="B"), torch.zeros(IMAGE)).groups(), "conv1")
    blocks = [f"layer1.{number}" for number in range(3)]
    assert group.layers == ["conv1", *(f"{block}.conv2" for block in blocks)]
    assert {(member.layer, member.dim) for member in group.members if member.name.endswith("weight")} == {
        ("conv1", 0),
        ("bn1", 0),
        *((f"{block}.{name}", 0) for block in blocks for name in ("conv2", "bn2")),
        *((f"{block}.conv1", 1) for block in blocks),
        ("layer2.0.conv1", 1),
        ("layer2.0.downsample.0", 1),
    }


class Padding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, x.shape[1] // 2, x.shape[1] // 2))


def foreign_resnet20() -> nn.Module:
    """The usual code of option A: constant padding, here by as much as the width asks for."""
    model = resnet20(shortcut="B")
    for stage in (model.layer2, model.layer3):
        stage[0].downsample = Padding()
    return model


@pytest.mark.parametrize("build", [resnet20, foreign_resnet20])
def test_padded_shortcuts_couple_stages_with_an_offset(build):
    groups = couple(build(), torch.zeros(IMAGE)).groups()
    group = group_of(groups, "conv1")
    assert group.size == 16
    for unit in range(16):
        place = positions(group, unit)
        (channel,) = place["conv1.weight", 0]
        assert place["layer2.0.conv2.weight", 0] == [channel + 8]
        assert place["layer2.1.bn2.weight", 0] == [channel + 8]
        assert place["layer3.0.conv1.weight", 1] == [channel + 8]
        assert place["layer3.2.conv2.weight", 0] == [channel + 24]
        assert place["fc.weight", 1] == [channel + 24]
    # What faces padding can go where the padding is data, and has to stay where it is code.
    sizes = [group.size for group in groups if "layer2.0.conv2" in group.layers]
    assert sizes == ([16, 16] if build is resnet20 else [16])


def test_doubled_shortcuts_take_every_channel_twice():
    class Doubling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = F.avg_pool2d(x, 1, 2)
            return torch.cat((x, x.mul(0)), 1)

    model = resnet20(shortcut="B")
    model.layer2[0].downsample, model.layer3[0].downsample = Doubling(), Doubling()
    place = positions(group_of(couple(model, torch.zeros(IMAGE)).groups(), "conv1"), 1)
    assert place["conv1.weight", 0] == [1]
    assert place["layer2.0.conv2.weight", 0] == [1, 17]
    assert place["layer3.0.conv2.weight", 0] == [1, 17, 33, 49]


def test_concatenation_shifts_what_reads_it():
    groups = couple(DenseNet(), torch.zeros(IMAGE)).groups()
    assert [(group.layers, group.size) for group in groups] == [
        (["stem"], 12),
        (["layer1"], 8),
        (["layer2"], 8),
        (["transition"], 14),
    ]
    place = positions(groups[1], 2)
    assert place["layer1.weight", 0] == [2]
    assert place["norm2.weight", 0] == place["layer2.weight", 1] == [14]
    assert place["norm3.weight", 0] == place["transition.weight", 1] == [14]
    assert ("norm1.weight", 0) not in place


def test_few_wide_groups_lose_the_same_positions():
    model = Grouped(8, 8, groups=2)
    coupling = couple(model, torch.zeros(IMAGE))
    groups = coupling.groups()
    assert [(group.layers, group.size) for group in groups] == [(["first"], 4), (["mid"], 4)]
    assert positions(groups[0], 1) == {("first.weight", 0): [1, 5], ("first.bias", 0): [1, 5], ("mid.weight", 1): [1]}
    mask(model, groups, lowest_norms(model, groups, 0.25))
    small = slim(model, torch.zeros(IMAGE))
    assert (small.mid.in_channels, small.mid.out_channels, small.mid.groups) == (6, 6, 2)
    kept = [int((model.first.bias == bias).nonzero()) for bias in small.first.bias]
    assert [channel % 4 for channel in kept[:3]] == [channel % 4 for channel in kept[3:]]


def test_many_narrow_groups_go_whole():
    model = Grouped(32, 16, groups=8)
    groups = couple(model, torch.zeros(IMAGE)).groups()
    assert [(group.layers, group.size) for group in groups] == [(["first", "mid"], 8)]
    place = positions(groups[0], 3)
    assert place["first.weight", 0] == [12, 13, 14, 15]
    assert place["mid.weight", 0] == place["last.weight", 1] == [6, 7]
    assert ("mid.weight", 1) not in place


def test_shuffled_channels_lose_the_same_positions_of_both_halves():
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = conv(3, 8), conv(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            n, c, h, w = x.shape
            return self.last(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    (group,) = couple(Shuffle(), torch.zeros(IMAGE)).groups()
    assert [positions(group, unit)["first.weight", 0] for unit in range(4)] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert [positions(group, unit)["last.weight", 1] for unit in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_fixed_filters_in_buffers_are_not_pruned_by_themselves():
    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = conv(3, 8), conv(8, 2)
            self.register_buffer("blur", torch.ones(8, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.conv2d(self.first(x), self.blur, groups=x.shape[1] // 3 * 8))

    (group,) = couple(Blur(), torch.zeros(IMAGE)).groups()
    assert {member.name: member.role for member in group.members} == {
        "first.weight": "filter",
        "first.bias": "bias",
        "blur": "other",
        "last.weight": "reader",
    }
    assert [g.layers for g in couple(Blur(), torch.zeros(IMAGE)).groups("independent")] == [["first"]]


# Residual streams -----------------------------------------------------------------------------------------------------


def test_inner_groups_leave_streams_whole():
    groups = couple(resnet20(), torch.zeros(IMAGE)).groups("inner")
    assert [group.layers for group in groups] == [
        [f"layer{stage}.{block}.conv1"] for stage in (1, 2, 3) for block in range(3)
    ]
    (first, *_) = couple(mobilenet_v2(width_mult=0.25), torch.zeros(IMAGE)).groups("inner")
    assert first.layers == ["features.2.conv.0.0", "features.2.conv.1.0"]  # a depthwise convolution passes channels on


def test_independent_groups_are_single_convolutions_with_their_own_batch_norm():
    groups = couple(resnet20(), torch.zeros(IMAGE)).groups("independent")
    assert len(groups) == 19
    for group in groups:
        (layer,) = group.layers
        norm = layer.replace("conv", "bn")
        assert {member.name for member in group.members} == {f"{layer}.weight", f"{norm}.weight", f"{norm}.bias"}
        assert all(torch.equal(member.index, torch.arange(group.size)[:, None]) for member in group.members)


def test_independent_groups_own_their_part_of_joined_batch_norms():
    groups = couple(DenseNet(), torch.zeros(IMAGE)).groups("independent")
    place = positions(group_of(groups, "layer1"), 2)
    assert place["norm2.weight", 0] == place["norm2.bias", 0] == place["norm3.weight", 0] == [14]


def test_independent_groups_do_not_own_the_norm_of_a_sum():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm, self.last = conv(3, 8), conv(3, 8), nn.BatchNorm2d(8), conv(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.norm(self.one(x) + self.two(x)))

    for group in couple(Sum(), torch.zeros(IMAGE)).groups("independent"):
        assert {member.name for member in group.members} == {f"{group.layers[0]}.weight", f"{group.layers[0]}.bias"}


@pytest.mark.parametrize("residual", ["coupled", "inner", "independent"])
def test_outputs_are_no_groups_and_independent_ones_are_convolutions(residual):
    model = nn.Sequential(conv(3, 8), nn.Flatten(), nn.Linear(8 * 1024, 6), nn.ReLU(), nn.Linear(6, 2))
    layers = [group.layers for group in couple(model, torch.zeros(IMAGE)).groups(residual)]
    assert layers == ([["0"]] if residual == "independent" else [["0"], ["2"]])
    assert couple(conv(3, 8), torch.zeros(IMAGE)).groups(residual) == []


# Linear layers, heads and group norms ---------------------------------------------------------------------------------


def test_rows_of_a_linear_layer_are_units():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    (group,) = couple(model, torch.zeros(3, 4)).groups()
    assert {(member.name, member.dim): member.role for member in group.members} == {
        ("0.weight", 0): "filter",
        ("0.bias", 0): "bias",
        ("2.weight", 1): "reader",
    }
    assert positions(group, 4) == {("0.weight", 0): [4], ("0.bias", 0): [4], ("2.weight", 1): [4]}


def test_a_head_is_its_rows_of_query_key_and_value():
    model = Packed(12, 4)
    (group,) = couple(model, torch.zeros(2, 5, 12)).groups()
    assert (group.layers, group.size) == (["qkv"], 4)
    rows = [3, 4, 5, 15, 16, 17, 27, 28, 29]  # three of each, 12 apart
    assert positions(group, 1) == {("qkv.weight", 0): rows, ("qkv.bias", 0): rows, ("proj.weight", 1): [3, 4, 5]}


def test_a_group_norm_makes_units_of_its_groups():
    model = nn.Sequential(conv(3, 8), nn.GroupNorm(4, 8), conv(8, 2))
    (group,) = couple(model, torch.zeros(IMAGE)).groups()
    assert {member.name: member.role for member in group.members} == {
        "0.weight": "filter",
        "0.bias": "bias",
        "1.weight": "scale",
        "1.bias": "shift",
        "2.weight": "reader",
    }
    assert [set(map(tuple, positions(group, unit).values())) for unit in range(2)] == [{(0, 1)}, {(2, 3)}]


def test_halves_that_are_multiplied_lose_the_same_positions():
    groups = couple(Gated(), torch.zeros(2, 5, 12)).groups()
    assert [(group.layers, group.size) for group in groups] == [(["up"], 10)]
    assert positions(groups[0], 3) == {("up.weight", 0): [3, 13], ("up.bias", 0): [3, 13], ("down.weight", 1): [3]}


def test_a_table_of_biases_has_one_column_a_head():
    model = Biased()
    (group,) = couple(model, torch.zeros(2, 5, 12)).groups()
    place = positions(group, 2)
    assert place["table", 1] == [2]
    assert place["query.weight", 0] == place["key.weight", 0] == place["value.weight", 0] == [6, 7, 8]


def test_tied_tables_are_one_tensor_of_the_stream():
    group = group_of(couple(Language(tied=True), words()).groups(), "hidden.down")
    members = {(member.name, member.dim) for member in group.members}
    assert {("tokens.weight", 1), ("places.weight", 1), ("hidden.up.weight", 1), ("hidden.down.weight", 0)} <= members
    assert "head.weight" not in {name for name, _ in members}


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "sparsity", "size"),
    [
        (resnet20, 0.3, (29_510_272, 191_626)),
        (resnet56, 0.4, (77_949_568, 524_212)),
        (resnet110, 0.4, (156_912_256, 1_061_422)),
    ],
)
def test_sizes_of_residual_networks_without_inner_channels(build, sparsity, size):
    """Filters of the first convolution of each block, rounded down, as He et al. 2018 (arXiv:1808.06866) count."""
    model, example = build(), torch.zeros(IMAGE)
    groups = couple(model, example).groups("inner")
    mask(model, groups, lowest_norms(model, groups, sparsity))
    small = slim(model, example)
    assert (macs(small, example), parameters(small)) == size


@pytest.mark.parametrize(
    "model",
    [
        resnet20(),
        resnet20(shortcut="B"),
        mobilenet_v2(width_mult=0.25),
        DenseNet(),
        Grouped(32, 16, 8),
        Grouped(8, 8, 2),
        nn.Sequential(conv(3, 8, stride=2), nn.ReLU(), nn.ConvTranspose2d(8, 6, 2, 2), nn.ReLU(), conv(6, 2)),
    ],
    ids=["resnet-A", "resnet-B", "mobilenet", "densenet", "narrow groups", "wide groups", "transposed"],
)
def test_predicted_sizes_are_those_of_the_slim_model(model):
    model, example = copy.deepcopy(model), torch.zeros(IMAGE)
    coupling = couple(model, example)
    assert model_size(coupling).macs == macs(model, example)
    groups = coupling.groups()
    pruned = random_units(groups)
    left = model_size(coupling, removal_of_units(coupling, groups, pruned))
    mask(model, groups, pruned)
    small = slim(model, example)
    assert left.macs == macs(small, example) < macs(model, example)
    assert left.parameters == parameters(small) < parameters(model)


# Torch-Pruning --------------------------------------------------------------------------------------------------------

PEERS = {
    "resnet20-B": lambda: resnet20(shortcut="B"),
    "vgg16": vgg16_bn,
    "densenet": DenseNet,
    "mobilenet-v2": lambda: mobilenet_v2(width_mult=0.25),
}


def peer_group(graph, model: nn.Module, layer: str, channels: list[int]):
    return graph.get_pruning_group(model.get_submodule(layer), torch_pruning.prune_conv_out_channels, channels)


@pytest.mark.parametrize("name", PEERS)
def test_groups_are_those_of_torch_pruning(name):
    model, example = PEERS[name]().eval(), torch.zeros(IMAGE)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example)
    names = {module: name for name, module in model.named_modules()}
    for group in couple(model, example).groups():
        for unit in (0, group.size // 2, group.size - 1):
            ours = {
                (member.layer, member.dim, tuple(sorted(member.index[unit].tolist())))
                for member in group.members
                if member.name.endswith("weight")
            }
            root = group.filters[0]
            theirs = {
                (names[dep.target.module], int(dep.handler.__name__ == "prune_in_channels"), tuple(sorted(channels)))
                for dep, channels in peer_group(graph, model, root.layer, root.index[unit].tolist())
                if dep.target.module in names
            }
            assert ours == theirs


@pytest.mark.parametrize("name", PEERS)
def test_slim_models_are_those_of_torch_pruning(name):
    model, example = PEERS[name]().eval(), torch.randn(2, *IMAGE[1:])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
    groups = couple(model, example).groups()
    pruned = random_units(groups)
    mask(model, groups, pruned)
    peer = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(peer, example)
    for group, units in zip(groups, pruned, strict=True):
        root = group.filters[0]
        peer_group(graph, peer, root.layer, root.index[units].reshape(-1).tolist()).prune()
    small = slim(model, example)
    assert {name: tensor.shape for name, tensor in small.state_dict().items()} == {
        name: tensor.shape for name, tensor in peer.state_dict().items()
    }
    assert macs(small, example) == macs(peer, example)
    with torch.no_grad():
        torch.testing.assert_close(small(example), peer(example))


# What does not change, and mistakes -----------------------------------------------------------------------------------


def test_model_and_random_state_stay_as_they_are():
    model = resnet20().train()
    model.layer1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert isinstance(couple(model, torch.randn(IMAGE, generator=torch.Generator())), Coupling)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_wrong_input_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"shape \(1, 3, 32\), got RuntimeError: .* pass an example_input") as error:
        couple(resnet20(), torch.zeros(1, 3, 32))
    assert "\n" not in str(error.value)
