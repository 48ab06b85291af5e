"""Every group that is called prunable really shrinks the model by just what was masked, and nothing else happens."""

import copy
import importlib
from collections import defaultdict
from functools import partial

import pytest
import torch
from attention_networks import ATTENTION, Fused, OfWidth, Together
from networks import CONVOLUTIONAL, IMAGE, Case, Net, as_tuple, conv, conv_bn, difference, randomise, shapes
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.errors import InputError
from lightning_prune.models.densenet import densenet40
from lightning_prune.models.googlenet import googlenet
from lightning_prune.models.lenet import lenet_5, lenet_300_100
from lightning_prune.models.resnet import resnet56
from lightning_prune.reporting.profiling import macs
from lightning_prune.slimming import TracedModel, couple, model_size
from lightning_prune.slimming.channels.groups import Group
from lightning_prune.slimming.channels.removal import removal_of_units
from lightning_prune.slimming.prunable_groups import PrunableGroups, prunable_groups
from lightning_prune.slimming.slim import slim, slimmed

DIGIT = partial(torch.randn, 2, 1, 28, 28)
ZOO = {
    "resnet56": Case(resnet56, {}),
    "densenet40": Case(partial(densenet40, growth=4), {}),
    "googlenet": Case(googlenet, {}),
    "lenet-300-100": Case(lenet_300_100, {}, DIGIT),
    "lenet-5": Case(lenet_5, {}, DIGIT),
}
CASES = {**CONVOLUTIONAL, **ATTENTION, **ZOO}


def random_masks(model: nn.Module, groups: PrunableGroups, fraction: float) -> dict[tuple[str, int], list[int]]:
    """Mask a fraction of each group, at least one unit, and return the positions that this promises to remove."""
    promised: dict[tuple[str, int], list[int]] = defaultdict(list)
    for group in groups:
        units = torch.randperm(group.size)[: max(1, int(fraction * group.size))]
        group.zero(model, units)
        for member in group.members:
            promised[member.name, member.dim] += member.index[units].reshape(-1).tolist()
    return {place: sorted(positions) for place, positions in promised.items() if positions}


def lost(model: nn.Module, kept: dict[str, dict[int, Tensor]]) -> dict[tuple[str, int], list[int]]:
    """Return the positions that a slim model has lost."""
    dense = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        (name, dim): sorted(set(range(dense[name].shape[dim])) - set(positions.tolist()))
        for name, dims in kept.items()
        for dim, positions in dims.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_slim_model_loses_what_masks_promise(name):
    """With a quarter of each group; that half of it can go is in the tests of `slim`."""
    model, inputs = randomise(CASES[name].build()), CASES[name].inputs()
    masked = copy.deepcopy(model)
    promised = random_masks(masked, prunable_groups(model, inputs), 0.25)
    result = slimmed(masked, TracedModel(masked, as_tuple(inputs)))
    assert lost(model, result.kept) == promised
    dense, small = shapes(model), shapes(result.model)
    for tensor in {name for name, _ in [*model.named_parameters(), *model.named_buffers()]} & small.keys():
        expected = [size - len(promised.get((tensor, dim), [])) for dim, size in enumerate(dense[tensor])]
        assert list(small[tensor]) == expected
    assert max(difference(masked, result.model, CASES[name].inputs()) for _ in range(3)) < 1e-5


@pytest.mark.parametrize("name", ["resnet20-A", "u-net", "split-attention", "fusion", "vision", "biased", "windows"])
def test_sizes_are_what_masks_promise(name):
    model, inputs = CASES[name].build(), CASES[name].inputs()
    groups = prunable_groups(model, inputs)
    coupling = couple(model, inputs)
    units = [torch.randperm(group.size) < group.size // 2 for group in groups]
    dense, left = model_size(coupling), model_size(coupling, removal_of_units(coupling, groups, units))
    for group, chosen in zip(groups, units, strict=True):
        group.zero(model, chosen)
    small = slim(model, inputs)
    assert left.parameters == sum(parameter.numel() for parameter in small.parameters())
    before, after = (macs(each, as_tuple(inputs)) for each in (model, small))
    assert after / before == pytest.approx(left.macs / dense.macs)


@pytest.mark.parametrize("name", ["scales", "dual-path", "vision", "by-number", "parallel"])
def test_each_group_shrinks_by_itself(name):
    case = {**CASES, "parallel": Case(two_sizes, {}, CASES["vision"].inputs)}[name]
    model, inputs = randomise(case.build()), case.inputs()
    groups = prunable_groups(model, inputs)
    assert len(groups) > 0
    for group in groups:
        masked = copy.deepcopy(model)
        units = torch.randperm(group.size)[: (group.size + 1) // 2]
        group.zero(masked, units)
        promised = {
            (member.name, member.dim): sorted(member.index[units].reshape(-1).tolist()) for member in group.members
        }
        assert lost(model, slimmed(masked, TracedModel(masked, as_tuple(inputs))).kept) == promised


def two_sizes() -> nn.Module:
    def forward(net: Net, x: Tensor) -> Tensor:
        a, b = torch.split(net.first(x), [6, 10], 1)
        return net.last(torch.cat([F.relu(net.a(a)), F.relu(net.b(b))], 1))

    return Net(forward, first=conv(3, 16), a=conv(6, 8), b=conv(10, 8), last=conv(16, 4))


# What stays -----------------------------------------------------------------------------------------------------------


def test_fixed_channels_are_listed_with_layer_and_operation():
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.sorted(x).sort(dim=1).values
        x = net.unmasked(x) + net.offset.sigmoid()
        x = net.counted(x)
        return net.last(net.free(x.view(len(x), 8, 64).view(x.shape)))

    model = Net(
        forward, sorted=conv(3, 6), unmasked=conv(6, 5), offset=nn.Parameter(torch.randn(5, 1, 1)), counted=conv(5, 8),
        free=conv(8, 8), last=conv(8, 4),
    )  # fmt: skip
    groups = prunable_groups(model, IMAGE())
    assert [group.layers for group in groups] == [["free"]]
    assert groups.fixed == {
        "enter aten.sort.default": [("sorted", 6)],
        "are not zero where a layer reads them, masked or not": [("unmasked", 5)],
        "are counted by the code of Net": [("counted", 8)],
        "are outputs of the model": [("last", 4)],
    }


def test_heads_whose_number_code_fixes_are_listed():
    assert prunable_groups(OfWidth(), torch.randn(2, 5, 12)).fixed == {
        "are counted by the code of OfWidth": [("qkv", 4)],
        "are outputs of the model": [("proj", 12)],
    }
    fixed = prunable_groups(Together(), torch.randn(2, 5, 12)).fixed
    (reason,) = [reason for reason in fixed if "MultiheadAttention" in reason]
    assert dict(fixed[reason]) == {"before": 12, "attend": 36, "attend.out_proj": 12}


def test_layers_that_assert_a_width_are_no_groups():
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.first(x)
        assert x.shape[1] == 8
        return net.last(net.second(x))

    groups = prunable_groups(Net(forward, first=conv(3, 8), second=conv(8, 8), last=conv(8, 4)), IMAGE())
    assert [group.layers for group in groups] == [["second"]]
    assert [layers for reason, layers in groups.fixed.items() if "code of Net" in reason] == [[("first", 8)]]


def test_channels_without_a_mask_that_would_hold_are_no_groups():
    # Behind batch norm without an affine map, a zero filter is a constant that is not zero.
    model = randomise(nn.Sequential(conv(3, 8), nn.BatchNorm2d(8, affine=False), conv(8, 8), conv(8, 4)))
    assert [group.layers for group in prunable_groups(model, IMAGE())] == [["2"]]
    assert [group.layers for group in couple(model, IMAGE()).groups()] == [["0"], ["2"]]


def test_models_with_nothing_to_prune_have_no_groups():
    groups = prunable_groups(conv(3, 8), IMAGE())
    assert (len(groups), list(groups), groups.fixed) == (0, [], {"are outputs of the model": [("", 8)]})
    assert str(groups).splitlines() == [
        "0 of 8 channels can go, those of each layer counted by themselves",
        "8 stay, because they are outputs of the model",
        "",
        "kept, because they are outputs of the model:  (8)",
    ]


@pytest.mark.parametrize("residual", ["coupled", "inner", "independent"])
def test_streams_are_treated_as_asked(residual):
    model, inputs = CONVOLUTIONAL["resnet20-B"].build(), IMAGE()
    ours = [group.layers for group in prunable_groups(model, inputs, residual)]
    assert ours == [group.layers for group in couple(model, inputs).groups(residual)]
    assert len(ours) == {"coupled": 12, "inner": 9, "independent": 21}[residual]


# As text --------------------------------------------------------------------------------------------------------------


def test_groups_are_shown_as_text():
    model = nn.Sequential(Fused(12, 4), nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 3))
    # Of 36 + 12 + 20 + 3 outputs the last three stay. Of the qkv layer a head of three remains for each of them (9 * 12
    # weights), and so on: 9 * 12 + 9 + 3 + 1 + 1 + 1 + 3 + 3 of 432 + 36 + 144 + 12 + 240 + 20 + 60 + 3 parameters.
    assert str(prunable_groups(model, torch.zeros(2, 5, 12))).splitlines() == [
        "68 of 71 channels can go, those of each layer counted by themselves",
        "3 groups, 36 units; with one unit of each group left, 13.6 % of the parameters and 13.1 % of the MACs remain",
        "3 stay, because they are outputs of the model",
        "",
        "group 0: 4 units",
        "  filter 0.qkv.weight[4 x 9]",
        "  bias   0.qkv.bias[4 x 9]",
        "  reader 0.proj.weight[:, 4 x 3]",
        "group 1: 12 units",
        "  filter 0.proj.weight[12]",
        "  bias   0.proj.bias[12]",
        "  reader 1.weight[:, 12]",
        "group 2: 20 units",
        "  filter 1.weight[20]",
        "  bias   1.bias[20]",
        "  reader 3.weight[:, 20]",
        "kept, because they are outputs of the model: 3 (3)",
    ]


@pytest.mark.parametrize("name", ["resnet20-A", "u-net", "vision", "dual-path"])
def test_what_remains_at_most_is_what_slim_leaves(name):
    model, inputs = CASES[name].build(), CASES[name].inputs()
    groups = prunable_groups(model, inputs)
    text = str(groups).splitlines()[1]
    dense = sum(parameter.numel() for parameter in model.parameters()), macs(model, as_tuple(inputs))
    for group in groups:
        group.zero(model, range(1, group.size))
    small = slim(model, inputs)
    left = sum(parameter.numel() for parameter in small.parameters()), macs(small, as_tuple(inputs))
    parameters, counted = (100 * one / other for one, other in zip(left, dense, strict=True))
    assert f"{parameters:.1f} % of the parameters and {counted:.1f} % of the MACs remain" in text


def test_channels_that_were_not_asked_for_are_counted():
    first, *rest = str(prunable_groups(CONVOLUTIONAL["resnet20-B"].build(), IMAGE(), "inner")).splitlines()[:4]
    numbers = [int(line.split()[0]) for line in (first, *rest[1:])]
    assert sum(numbers) == int(first.split()[2])
    assert rest[-1].endswith("stay, because they are in none of the groups that were asked for")


def test_parts_of_tensors_are_shown_as_such():
    text = str(prunable_groups(two_sizes(), IMAGE())).splitlines()
    assert text[-1].startswith("kept, because they are counted by the code of Net: first (")
    assert "  filter a.weight[8]" in text
    assert "  reader last.weight[:, 8 of 16]" in text


def test_groups_are_a_sequence():
    groups = prunable_groups(CONVOLUTIONAL["fire"].build(), IMAGE())
    assert [isinstance(group, Group) for group in groups] == [True] * 3
    assert [group.layers for group in groups[1:]] == [["one"], ["three"]]
    assert groups[-1].size == 16


# The model ------------------------------------------------------------------------------------------------------------


def state(model: nn.Module) -> list[object]:
    """Return all that a call could change in a model, other than its tensors' values."""
    return [
        (name, vars(module).keys(), {k: v for k, v in vars(module).items() if isinstance(v, int | str | tuple | list)},
         {k: len(v) for k, v in vars(module).items() if k.endswith("_hooks")},
         {k: (id(v), v.data_ptr(), v._version if k == "" else 0, v.requires_grad, v.grad) for k, v in
          [*module._parameters.items(), *module._buffers.items()] if v is not None})
        for name, module in model.named_modules()
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["resnet20-A", "by-number", "of-width", "norms", "tied-language", "ghost", "compiled"])
def test_model_and_random_state_stay_as_they_are(name):
    model, inputs = randomise(CASES[name].build()), CASES[name].inputs()
    for number, module in enumerate(model.modules()):
        module.training = number % 3 != 0
    values, before = copy.deepcopy(model.state_dict()), state(model)
    randomness = torch.get_rng_state()
    prunable_groups(model, inputs)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert state(model) == before
    assert all(torch.equal(tensor, values[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("failing", ["follow_channels", "reference_outputs", "remove_what_works"])
def test_model_stays_as_it_is_when_something_raises(failing, monkeypatch):
    def fail(*arguments: object) -> None:
        assert not model[0][0].weight[0].any()  # it is masked
        raise RuntimeError("out of memory")

    module = importlib.import_module("lightning_prune.slimming.prunable_groups")
    model = nn.Sequential(conv_bn(3, 8), OneHead(), conv(8, 4)).train()
    values, before = copy.deepcopy(model.state_dict()), state(model)
    monkeypatch.setattr(module, failing, fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        prunable_groups(model, IMAGE())
    assert state(model) == before
    assert all(torch.equal(tensor, values[key]) for key, tensor in model.state_dict().items())


class OneHead(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), x.shape[1], -1).view(x.shape)


def test_groups_found_in_a_model_serve_its_copies():
    model, inputs = CONVOLUTIONAL["pyramid"].build(), IMAGE()
    group = prunable_groups(model, inputs)[1]
    other = copy.deepcopy(model)
    group.zero(other, torch.tensor([0]))
    assert not any(other.get_submodule(layer)[0].weight[0].any() for layer in ("1.fine",))
    assert all(tensor.any() for tensor in model[1].fine[0].weight)


def test_wrong_input_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"shape \(1, 3, 32\), got RuntimeError") as error:
        prunable_groups(CONVOLUTIONAL["resnet20-A"].build(), torch.zeros(1, 3, 32))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("units", [[1, 3], torch.tensor([1, 3]), torch.tensor([0, 1, 0, 1, 0, 0, 0, 0]).bool()])
def test_units_are_named_by_numbers_or_by_a_mask(units):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    (group,) = prunable_groups(model, torch.randn(2, 4))
    group.zero(model, units)
    assert model[0].weight.any(dim=1).nonzero().flatten().tolist() == [0, 2, 4, 5, 6, 7]
    assert model[0].bias[[1, 3]].tolist() == [0, 0]


def test_a_group_is_shown_in_one_line():
    (group,) = prunable_groups(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    assert repr(group) == "Group(8 units: 0.weight, 0.bias, 2.weight)"


def test_layers_with_weights_that_cannot_be_followed_are_listed():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(4, 8))
    groups = prunable_groups(nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2)), torch.randn(2, 4))
    (found,) = [layers for reason, layers in groups.fixed.items() if "_weight_norm" in reason]
    assert (len(groups), found) == (0, [("0", 8)])


class Sampling(Net):
    """An encoder that draws random numbers in `forward`, as that of a variational autoencoder does."""

    def __init__(self) -> None:
        super().__init__(None, encode=nn.Linear(4, 8), mean=nn.Linear(8, 3), decode=nn.Linear(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.mean(F.relu(self.encode(x)))
        return self.decode(mean + torch.randn_like(mean))


def test_models_that_draw_random_numbers_are_pruned():
    model, x = Sampling(), torch.randn(5, 4)
    groups = prunable_groups(model, x)
    assert [group.layers for group in groups] == [["encode"]]
    groups[0].zero(model, range(4))
    state = torch.get_rng_state()
    small = slim(model, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert small.encode.weight.shape == (4, 4)
    outputs = []
    for one in (model, small):
        torch.manual_seed(3)
        outputs.append(one(x))
    torch.testing.assert_close(*outputs)


class Counting(Net):
    """Counts its calls in a buffer, and reads the count."""

    def __init__(self) -> None:
        super().__init__(None, first=nn.Linear(4, 8), last=nn.Linear(8, 2))
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return self.last(F.relu(self.first(x))) * self.calls


def test_buffers_that_forward_writes_to_are_put_back():
    model, x = Counting(), torch.randn(2, 4)
    prunable_groups(model, x)[0].zero(model, [0, 1])
    small = slim(model, x)
    assert (model.calls.item(), small.calls.item(), len(small.first.weight)) == (0, 0, 6)


class Remembering(nn.Module):
    """Computes something else in every call, by a number that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.calls = nn.Linear(4, 8), nn.Linear(8, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.last(F.relu(self.first(x))) * self.calls


def test_models_that_never_compute_the_same_are_refused():
    with pytest.raises(InputError, match="expected a Remembering that always computes the same in eval mode"):
        slim(Remembering(), torch.randn(2, 4))


class Doubling(nn.Module):
    """Its copies compute twice as much."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.scale = nn.Linear(4, 8), nn.Linear(8, 2), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x))) * self.scale

    def __deepcopy__(self, memo: dict[int, object]) -> "Doubling":
        new = Doubling()
        new.load_state_dict(self.state_dict())
        new.scale = nn.Parameter(2 * self.scale.detach())
        return new


def test_models_whose_copies_compute_something_else_are_refused():
    with pytest.raises(InputError, match="expected a Doubling whose copy computes what it does"):
        slim(Doubling(), torch.randn(2, 4))
