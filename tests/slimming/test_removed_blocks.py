"""Slim models without whole blocks and branches, against masked models and hand counts."""

import copy
import logging

import pytest
import torch
from block_networks import CASES, SMALL, BasicBlock, find, residual, silence, whole
from networks import Net, conv, conv_bn, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.callbacks.sparsity_monitor import measure
from lightning_prune.errors import InputError
from lightning_prune.models.googlenet import googlenet
from lightning_prune.models.resnet import ResNet, resnet56
from lightning_prune.reporting.profiling import macs
from lightning_prune.slimming import Group, couple
from lightning_prune.slimming.slim import slim
from lightning_prune.slimming.slim_files import load_slim, save_slim
from lightning_prune.slimming.zero_modules import ZeroOutput


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def gone(model: nn.Module) -> set[str]:
    """Return the modules from which nothing comes any more, seen from outside: their code was replaced."""
    return {name for name, module in model.named_modules() if isinstance(module, ZeroOutput)}


@pytest.mark.parametrize("name", CASES)
def test_slim_model_without_blocks_is_the_masked_model(name, caplog, tmp_path):
    case = CASES[name]
    dense = randomise(case.build()).eval()
    model, x = copy.deepcopy(dense), torch.randn(case.size)
    coupling = couple(model, x)
    chosen = coupling.structures(case.kind)[::3]
    silence(model, chosen)
    small = slim(model, x)
    assert not [record for record in caplog.records if record.name.startswith("lightning_prune")]
    layers = {member.name for one in chosen for member in one.members} - {m.name for one in chosen for m in one.gates}
    assert layers.isdisjoint(dict(small.named_parameters()))
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)
        twice = torch.cat((x, x.flip(-1)))
        torch.testing.assert_close(small(twice), model(twice), rtol=1e-5, atol=1e-5)
    ratios = measure(model, coupling, coupling.groups())
    assert ratios["params/ratio"] == parameters(small) / parameters(dense) < 1
    assert ratios["macs/ratio"] == macs(small, x) / macs(dense, x) < 1
    again = slim(small, x)
    assert str(again) == str(small)
    save_slim(small, tmp_path / "slim.pt")
    loaded = load_slim(case.build(), tmp_path / "slim.pt").eval()
    assert str(loaded) == str(small)
    with torch.no_grad():
        assert torch.equal(loaded(x), small(x))
    small.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.parametrize("name", ["resnet-B", "googlenet", "norm-behind"])
def test_zero_gates_are_enough(name):
    case = CASES[name]
    model, x = randomise(case.build()).eval(), torch.randn(case.size)
    dense, coupling = parameters(model), couple(model, x)
    chosen = coupling.structures(case.kind)[1:]
    silence(model, chosen, all_of_it=False)
    ratio = measure(model, coupling, coupling.groups())["params/ratio"]
    small = slim(model, x)
    assert ratio == parameters(small) / dense < 1
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)


# Our networks, by numbers ---------------------------------------------------------------------------------------------


def test_ordinary_blocks_of_resnet56_cost_the_same():
    model, x = randomise(resnet56()).eval(), torch.randn(1, 3, 32, 32)
    blocks = couple(model, x).structures("block")
    assert len(blocks) == 27
    chosen = [blocks[i] for i in (0, 3, 4, 8, 10, 12, 17, 19, 21, 26)]
    silence(model, chosen)
    small = slim(model, x)
    assert macs(small, x) == 125_485_696 - 10 * 4_718_592
    # 2 * 9 * width^2 weights and 4 * width of batch norms: 4 blocks of 16, 3 of 32 and 3 of 64 channels
    assert parameters(model) - parameters(small) == 4 * 4_672 + 3 * 18_560 + 3 * 73_984
    with torch.no_grad():
        assert torch.equal(small(x), model(x))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_shortcut_of_a_transition_stays(shortcut):
    model, x = randomise(ResNet((1, 1, 1), (4, 8, 16), shortcut=shortcut)).eval(), torch.randn(SMALL)
    silence(model, [find(model)["layer2.0"]])
    small = slim(model, x)
    assert gone(small) == {"layer2.0.conv1", "layer2.0.bn2"}
    assert parameters(model) - parameters(small) == 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8  # conv1, conv2, bn1 and bn2
    if shortcut == "B":
        assert torch.equal(small.layer2[0].downsample[0].weight, model.layer2[0].downsample[0].weight)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x))
        torch.testing.assert_close(small(torch.ones(1, 3, 9, 12)), model(torch.ones(1, 3, 9, 12)))


def test_branches_of_googlenet_by_hand():
    model, x = randomise(googlenet()).eval(), torch.randn(1, 3, 8, 8)
    branches = find(model, x.shape, "branch")
    silence(model, [branches["a3.branch1x1"], branches["b5.branch5x5"]])
    small = slim(model, x)
    # a3 1x1: 192 * 64 weights, 64 biases, 128 of batch norm; four branches of b3 read 64 channels less
    lost = 192 * 64 + 64 + 128 + 64 * (128 + 128 + 32 + 64)
    # b5 5x5: 832 -> 48 -> 128 -> 128, and the linear layer reads 128 features less
    lost += 832 * 48 + 9 * 48 * 128 + 9 * 128 * 128 + 3 * (48 + 128 + 128) + 10 * 128
    assert parameters(model) - parameters(small) == lost
    assert small.linear.in_features == 896
    assert gone(small) == {"a3.branch1x1", "b5.branch5x5"}
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-5, atol=1e-5)


def test_one_branch_stays_where_all_are_silent():
    branches = nn.Sequential(Net(two_branches, one=conv_bn(8, 6), two=conv_bn(8, 4)))
    model, x = whole(branches, conv(10, 8)), torch.randn(SMALL)
    coupling = couple(model.eval(), x)
    silence(model, coupling.structures("branch"), all_of_it=False)
    before = parameters(model), macs(model, x)
    small = slim(model, x)
    assert gone(small) == {"1.0.two"}
    assert small.get_submodule("1.0.one.0").weight.shape == (1, 8, 3, 3)
    assert small.get_submodule("2").weight.shape == (8, 1, 3, 3)
    ratios = measure(model, coupling, coupling.groups())
    assert ratios["params/ratio"] == parameters(small) / before[0]
    assert ratios["macs/ratio"] == macs(small, x) / before[1]
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x))


def two_branches(net: Net, x: Tensor) -> Tensor:
    return torch.cat((net.one(x), net.two(x)), dim=1)


def test_sums_of_three_and_sums_inside_of_blocks():
    """The innermost block counts, and so does the one of a sum whose shortcut is a sum."""

    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.first(x) + net.second(x) + x
        return y + net.outer(y)

    outer = nn.Sequential(conv_bn(8, 8), residual(conv(8, 8), nn.BatchNorm2d(8)), conv(8, 8))
    first = nn.Sequential(conv_bn(8, 8), conv(8, 8), nn.BatchNorm2d(8))
    model = randomise(whole(Net(forward, first=first, second=conv(8, 8, 1), outer=outer))).eval()
    found, x = find(model), torch.randn(SMALL)
    assert list(found) == ["1", "1.outer.1"]
    silence(model, list(found.values()))
    small = slim(model, x)
    assert gone(small) == {"1.first", "1.outer.1.inner"}
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x))


# Together with channels ----------------------------------------------------------------------------------------------


@torch.no_grad()
def mask(model: nn.Module, groups: list[Group], seed: int = 0) -> None:
    """Zero half of each group's units."""
    stored, generator = dict(model.named_parameters()), torch.Generator().manual_seed(seed)
    for group in groups:
        units = torch.randperm(group.size, generator=generator)[: group.size // 2]
        for member in group.owned:
            stored[member.name].index_fill_(member.dim, member.index[units].reshape(-1), 0)


@pytest.mark.parametrize("name", ["resnet-A", "bottleneck", "mobilenet", "googlenet"])
def test_channels_and_blocks_go_together_and_again(name):
    case = CASES[name]
    model, x = randomise(case.build()).eval(), torch.randn(case.size)
    dense = parameters(model), macs(model, x)
    coupling = couple(model, x)
    mask(model, coupling.groups())
    silence(model, coupling.structures(case.kind)[1::2])
    small = slim(model, x)
    ratios = measure(model, coupling, coupling.groups())
    assert ratios["params/ratio"] == parameters(small) / dense[0]
    assert ratios["macs/ratio"] == macs(small, x) / dense[1]
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)
    coupling = couple(small, x)
    dense = parameters(small), macs(small, x)
    mask(small, coupling.groups(), seed=1)
    silence(small, coupling.structures(case.kind)[:1])
    smaller = slim(small, x)
    ratios = measure(small, coupling, coupling.groups())
    assert ratios["params/ratio"] == parameters(smaller) / dense[0] < 1
    assert ratios["macs/ratio"] == macs(smaller, x) / dense[1]
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), small(x), rtol=1e-4, atol=1e-4)


# Code that relies on shapes, and files --------------------------------------------------------------------------------


def counting() -> nn.Module:
    """A block whose code writes the width of what lies in it down."""

    def forward(net: Net, x: Tensor) -> Tensor:
        y = net.first(x)
        y = y.reshape(len(x), 2, 6, *x.shape[2:]).flip(1).reshape(len(x), 12, *x.shape[2:])
        return x + net.last(y)

    return Net(forward, first=conv_bn(8, 12), last=nn.Sequential(conv(12, 8), nn.BatchNorm2d(8)))


def test_code_that_relies_on_shapes_keeps_its_block(caplog):
    model, x = randomise(whole(counting(), BasicBlock(8, 8))).eval(), torch.randn(SMALL)
    silence(model, list(find(model).values()))
    small = slim(model, x)
    assert gone(small) == {"2.conv1", "2.bn2"}
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x))
    said = [record.getMessage() for record in caplog.records]
    assert "slim kept the masked block 1: the model's code relies on its shapes" in said


def test_branch_stays_where_code_cannot_do_without_channels(caplog):
    """torch refuses to pool no channels."""
    model, x = randomise(CASES["fire"].build()).eval(), torch.randn(SMALL)
    silence(model, list(find(model, kind="branch").values())[:2])
    small = slim(model, x)
    assert gone(small) == {"1.conv1", "1.bn1"}
    assert small.get_submodule("1.three.0").weight.shape == (1, 8, 3, 3)
    assert "slim kept the masked branch 1.three: the model's code relies on its shapes" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x))


def test_weights_that_other_code_reads_keep_their_block(caplog):
    def forward(net: Net, x: Tensor) -> Tensor:
        return x + net.norm(F.conv2d(net.first(x), net.weight, padding=1))

    weight = nn.Parameter(torch.randn(8, 6, 3, 3))
    model = randomise(whole(Net(forward, first=conv_bn(8, 6), weight=weight, norm=nn.BatchNorm2d(8)))).eval()
    coupling, x = couple(model, torch.zeros(SMALL)), torch.randn(SMALL)
    dense = parameters(model)
    silence(model, coupling.structures("block"))
    with caplog.at_level(logging.WARNING):
        small = slim(model, x)
    assert "slim kept the masked block 1: code outside of its layers computes with it" in caplog.text
    assert small.get_submodule("1.first.0").weight.shape == (1, 8, 3, 3)
    assert measure(model, coupling, coupling.groups())["params/ratio"] == parameters(small) / dense
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x))


@pytest.fixture(scope="module")
def shortened(tmp_path_factory) -> tuple[nn.Module, dict]:
    """A slim model without a block, and what its file holds."""
    path = tmp_path_factory.mktemp("slim") / "slim.pt"
    model = randomise(ResNet((1, 1, 1), (4, 8, 16))).eval()
    silence(model, [find(model)["layer1.0"]])
    small = slim(model, torch.randn(SMALL))
    save_slim(small, path)
    return small, torch.load(path, weights_only=True)


def test_files_from_before_blocks_went_still_load(tmp_path):
    path, model = tmp_path / "slim.pt", ResNet((1, 1, 1), (4, 8, 16)).eval()
    save_slim(model, path)
    saved = torch.load(path, weights_only=True)
    assert saved.pop("gone") == {}
    torch.save(saved, path)
    x = torch.randn(SMALL)
    with torch.no_grad():
        assert torch.equal(load_slim(ResNet((1, 1, 1), (4, 8, 16)).eval(), path)(x), model(x))


CRAFTED = {
    "no such module": ({"layer9": None}, {}, "it tells that a module layer9 is gone"),
    "the model itself": ({"": None}, {}, "it tells that a module without a name is gone"),
    "nothing to lose": ({"relu": None}, {}, "it tells that a module relu is gone"),
    "weights that the file has": ({"fc": None}, {}, "only the file has a tensor fc.bias"),
    "too wide": (
        {"layer1.0.bn2": {"dim": -3, "strides": [1, 1, 1, 1]}},
        {"layer1.0.bn2.zeros": torch.zeros(1000)},
        "it has 1000 channels of zeros for layer1.0.bn2, which has 4",
    ),
    "not zero": (
        {"layer1.0.bn2": {"dim": -3, "strides": [1, 1, 1, 1]}},
        {"layer1.0.bn2.zeros": torch.ones(4)},
        "cannot be read as one",
    ),
    "no stride": ({"layer1.0.bn2": {"dim": -3, "strides": [1, 1, 0, 1]}}, {}, "cannot be read as one"),
    "no dimension": ({"layer1.0.bn2": {"dim": 7, "strides": [1, 1, 1, 1]}}, {}, "cannot be read as one"),
    "no words for it": ({"layer1.0.bn2": "nothing"}, {}, "cannot be read as one"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_files_are_refused_before_the_model_changes(name, shortened, tmp_path):
    path, saved = tmp_path / "slim.pt", copy.deepcopy(shortened[1])
    assert saved["gone"]["layer1.0.conv2"] is None
    lost, buffers, message = CRAFTED[name]
    saved["gone"] |= lost
    saved["buffers"] |= buffers
    torch.save(saved, path)
    model = ResNet((1, 1, 1), (4, 8, 16))
    before = str(model), copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=message) as error:
        load_slim(model, path)
    assert "\n" not in str(error.value)
    assert str(model) == before[0]
    assert all(torch.equal(tensor, before[1][key]) for key, tensor in model.state_dict().items())


# A slim model is a model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["basic", "fire"])
def test_slim_model_is_copied_exported_and_compiled(name):
    case = CASES[name]
    model, x = randomise(case.build()).eval(), torch.randn(case.size)
    silence(model, couple(model, x).structures(case.kind)[:1])
    small = slim(model, x)
    with torch.no_grad():
        expected = small(x)
        assert torch.equal(copy.deepcopy(small)(x), expected)
        assert torch.equal(torch.export.export(small, (x,)).module()(x), expected)
        torch.testing.assert_close(torch.compile(small, backend="aot_eager")(x), expected)
        twin = load_like(small)
        assert torch.equal(twin(x), expected)
        halved = copy.deepcopy(small).bfloat16()(x.bfloat16())
    assert halved.dtype == torch.bfloat16


def load_like(small: nn.Module) -> nn.Module:
    twin = copy.deepcopy(small)
    for parameter in twin.parameters():
        nn.init.zeros_(parameter)
    twin.load_state_dict(small.state_dict())
    return twin


def test_nothing_is_as_large_as_it_says():
    nothing = ZeroOutput(5, -3, (1, 1, 2, 3))
    out = nothing(torch.ones(2, 9, 7, 7))
    assert out.shape == (2, 5, 4, 3)
    out += 1  # memory of its own
    assert not nothing(torch.ones(2, 9, 7, 7)).any()
    assert ZeroOutput(4, -1, (1, 1))(torch.ones(3, 8)).shape == (3, 4)


def test_images_of_other_sizes_serve(shortened):
    for size in ((1, 3, 8, 8), (3, 3, 17, 9)):
        assert shortened[0](torch.randn(size)).shape == (size[0], 10)
