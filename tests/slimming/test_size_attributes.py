"""Sizes that code takes from attributes change with the channels, and only those that have to."""

import copy
import logging
from collections.abc import Callable
from functools import partial

import pytest
import torch
from attention_networks import ATTENTION, TOKENS, Around, ByNumber, ManyHeads, Packed, around, weigh
from networks import CONVOLUTIONAL, Case, difference, randomise, shapes
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_prune.slimming.prunable_groups import prunable_groups
from lightning_prune.slimming.slim import slim
from lightning_prune.slimming.slim_files import load_slim, save_slim


def half(model: nn.Module, inputs: Tensor) -> nn.Module:
    """Mask a random half of each group."""
    for group in prunable_groups(model, inputs):
        group.zero(model, torch.randperm(group.size)[: group.size // 2])
    return model


def slim_half(build: Callable[[], nn.Module], inputs: Callable[[], Tensor]) -> nn.Module:
    """Return the slim model of a masked one, after a comparison of both."""
    model = half(randomise(build()), inputs())
    small = slim(model, inputs())
    assert max(difference(model, small, inputs()) for _ in range(3)) < 1e-5
    return small


class Parts(nn.Module):
    """One layer's channels, cut into parts of listed sizes."""

    def __init__(self, sizes: list[int] | tuple[int, ...]) -> None:
        super().__init__()
        self.sizes, self.up = sizes, nn.Linear(12, sum(sizes))
        self.layers = nn.ModuleList(nn.Linear(size, 3) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(F.relu(self.up(x)), self.sizes, -1)
        return sum(layer(part) for layer, part in zip(self.layers, parts, strict=True))


class Windowed(ByNumber):
    """Attention within windows of as many positions as there are heads."""

    def __init__(self) -> None:
        super().__init__()
        self.window = 4

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, self.window, 12)).view(*x.shape[:2], -1)


class Trained(ByNumber):
    """What is as many as heads are plays a part in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.every = 4

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :: self.every] if self.training else x)


class Parallel(nn.Module):
    """Attention and hidden units of one layer, and of another behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.sizes = 4, [12, 12, 12, 20]
        self.first, self.last = nn.Linear(12, 56), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        *qkv, hidden = torch.split(self.first(x), self.sizes, -1)
        attended = weigh(*(each.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for each in qkv))
        return self.last(torch.cat([attended.transpose(1, 2).flatten(2), F.gelu(hidden)], -1))


class Blocks(nn.Module):
    """Two modules of one class."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Packed(), Packed()
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.one(self.norm1(x))
        return x + self.two(self.norm2(x))


def test_one_attribute_of_each_network_by_hand():
    expected = {
        "by-number": ("attend", "heads", 2),
        "packed": ("attend", "num_heads", 2),
        "einsum": ("attend", "heads", 2),
        "many-heads": ("attend", "heads", 3),
        "windows": ("attend", "num_heads", 2),
        "vision": ("blocks.1.1", "num_heads", 2),
        "split-unit": ("1", "half", 4),
        "scales": ("1", "width", 2),
        "dual-path": ("1", "added", 4),
        "split-attention": ("1", "radix", 2),
        "flattening": ("1", "features", 16),
    }
    cases = {**CONVOLUTIONAL, **ATTENTION}
    found = {}
    for name, (module, attribute, _) in expected.items():
        small = slim_half(cases[name].build, cases[name].inputs)
        found[name] = module, attribute, getattr(small.get_submodule(module), attribute)
    assert found == expected


def test_numbers_of_channels_a_head_stay():
    small = slim_half(partial(around, Packed), TOKENS)
    assert (small.attend.head_dim, small.attend.scale) == (3, 3**-0.5)


def test_a_slice_ends_where_its_channels_do():
    model, inputs = CONVOLUTIONAL["ghost"].build(), torch.randn(2, 3, 8, 8)
    # Of twelve features, six and six made of them, the attribute keeps ten; the second and the last pair go.
    layer, cheap = model[1].primary, model[1].cheap
    with torch.no_grad():
        for part in (layer, cheap):
            for tensor in (part[0].weight, part[1].weight, part[1].bias):
                tensor[[1, 5]] = 0
    small = slim(model, inputs)
    assert small[1].channels == 10 - 2 - 1
    assert shapes(small)["2.weight"] == (4, 7, 1, 1)
    assert difference(model, small, torch.randn(2, 3, 8, 8)) < 1e-5


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize(("sizes", "left"), [((4, 6, 2), (2, 3, 1)), ((4, 4, 2), (2, 2, 1)), ((6, 8, 12), (3, 4, 6))])
def test_lists_of_sizes_change(kind, sizes, left):
    small = slim_half(lambda: Parts(kind(sizes)), TOKENS)
    assert small.sizes == kind(left)
    assert [layer.in_features for layer in small.layers] == list(left)


def test_sizes_of_a_list_and_heads_change_together():
    small = slim_half(partial(around, Parallel), TOKENS)
    assert (small.attend.heads, small.attend.sizes) == (2, [6, 6, 6, 10])


def test_of_two_attributes_of_equal_value_one_stays():
    small = slim_half(partial(around, Windowed), partial(torch.randn, 2, 8, 12))
    assert (small.attend.heads, small.attend.window) == (2, 4)


def test_attributes_that_need_not_change_stay():
    model = half(around(Trained), TOKENS())
    small = slim(model, TOKENS())
    assert (small.attend.heads, small.attend.every) == (2, 4)


def test_modules_of_one_class_have_their_own_numbers():
    model, inputs = Blocks(), TOKENS()
    one, two = (group for group in prunable_groups(model, inputs))
    one.zero(model, torch.tensor([2]))
    two.zero(model, torch.tensor([0, 1, 3]))
    small = slim(model, inputs)
    assert (small.one.num_heads, small.two.num_heads) == (3, 1)
    assert (shapes(small)["one.qkv.weight"], shapes(small)["two.qkv.weight"]) == ((27, 12), (9, 12))
    assert difference(model, small, TOKENS()) < 1e-5


@pytest.mark.parametrize("damping", ["layer scale", "even attention"])
def test_sizes_are_right_where_outputs_hardly_tell(damping):
    """Three heads of two channels, not six of one: with a layer scale of 1e-6 the outputs are the same."""
    model = half(around(ManyHeads), TOKENS())
    with torch.no_grad():
        for layer in (model.attend.out,) if damping == "layer scale" else (model.attend.query, model.attend.key):
            layer.weight.mul_(1e-5)
    small = slim(model, TOKENS())
    assert small.attend.heads == 3
    for each in (model, small):
        with torch.no_grad():
            for layer in (each.attend.query, each.attend.key, each.attend.out):
                layer.weight.div_(layer.weight.abs().max())
    assert difference(model, small, TOKENS()) < 1e-5


def test_slim_models_can_be_pruned_again():
    model, inputs = around(ByNumber), TOKENS()
    for heads in (3, 2):
        (group,) = prunable_groups(model, inputs)
        group.zero(model, torch.tensor([1]))
        small = slim(model, inputs)
        assert (small.attend.heads, shapes(small)["attend.query.weight"]) == (heads, (3 * heads, 12))
        assert difference(model, small, TOKENS()) < 1e-5
        model = small


# What code fixes ------------------------------------------------------------------------------------------------------


class Fixing(nn.Module):
    """Two parts whose number of channels the code fixes, and attention beside them."""

    def __init__(self, fixed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fixed, self.before, self.after = fixed, nn.Linear(12, 8), nn.Linear(8, 12)
        self.attend, self.free, self.last = ByNumber(), nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.after(self.fixed(F.relu(self.before(x))))
        return self.last(F.relu(self.free(self.attend(x))))


def asserted(x: Tensor) -> Tensor:
    assert x.shape[-1] == 8
    return x


FIXED = {
    "constant": lambda x: x.view(2, 5, 8),
    "assertion": asserted,
    "slices": lambda x: torch.cat([x[..., 5:], x[..., :5]], -1),
}


@pytest.mark.parametrize("name", FIXED)
def test_what_code_fixes_stays_and_is_named_and_the_rest_goes(name, caplog):
    model, inputs = Fixing(FIXED[name]), TOKENS()
    with torch.no_grad():
        model.before.weight[:4] = model.before.bias[:4] = 0
    half(model, inputs)
    with caplog.at_level(logging.WARNING, "lightning_prune"):
        small = slim(model, inputs)
    assert {name: shape for name, shape in shapes(small).items() if name.endswith("weight")} == {
        "before.weight": (8, 12),
        "after.weight": (6, 8),
        "attend.query.weight": (6, 6),
        "attend.key.weight": (6, 6),
        "attend.value.weight": (6, 6),
        "attend.out.weight": (6, 6),
        "free.weight": (3, 6),
        "last.weight": (3, 3),
    }
    assert small.attend.heads == 2
    assert "slim kept the masked channels of before: the code of Fixing relies on their number" in caplog.text
    assert difference(model, small, TOKENS()) < 1e-5


def test_heads_whose_number_is_worked_out_of_the_width_stay(caplog):
    case = ATTENTION["of-width"]
    model, inputs = case.build(), case.inputs()
    with torch.no_grad():
        for start in (0, 12, 24):
            model.attend.qkv.weight[start : start + 3] = model.attend.qkv.bias[start : start + 3] = 0
    with caplog.at_level(logging.WARNING, "lightning_prune"):
        small = slim(model, inputs)
    assert "kept the masked channels of attend.qkv: the code of OfWidth relies on their number" in caplog.text
    assert (small.attend.num_heads, shapes(small)["attend.qkv.weight"]) == (4, (36, 12))


# The model and its file -----------------------------------------------------------------------------------------------


def test_original_keeps_its_attributes():
    model, inputs = around(Parallel), TOKENS()
    half(model, inputs)
    before = {key: copy.copy(value) for key, value in vars(model.attend).items()}
    slim(model, inputs)
    assert {key: copy.copy(value) for key, value in vars(model.attend).items()} == before
    assert model.attend.sizes == [12, 12, 12, 20]


FILES = {
    "parallel": Case(partial(around, Parallel), {}, TOKENS),
    "tuple": Case(partial(Parts, (4, 6, 2)), {}, TOKENS),
    "blocks": Case(Blocks, {}, TOKENS),
    "by-number": ATTENTION["by-number"],
    "ghost": CONVOLUTIONAL["ghost"],
}


@pytest.mark.parametrize("name", FILES)
def test_attributes_survive_files(name, tmp_path):
    case = FILES[name]
    small = slim_half(case.build, case.inputs)
    save_slim(small, tmp_path / "slim.pt")
    torch.load(tmp_path / "slim.pt", weights_only=True)
    save_slim(load_slim(case.build(), tmp_path / "slim.pt"), tmp_path / "again.pt")
    loaded = load_slim(case.build(), tmp_path / "again.pt")
    for name, module in small.named_modules():
        own = {key: value for key, value in vars(module).items() if not key.startswith("_")}
        numbers = {key: value for key, value in own.items() if isinstance(value, int | list | tuple)}
        assert {key: vars(loaded.get_submodule(name))[key] for key in numbers} == numbers
    assert difference(small, loaded, case.inputs()) == 0


def test_a_loaded_model_can_be_pruned_again(tmp_path):
    save_slim(slim_half(partial(around, ByNumber), TOKENS), tmp_path / "slim.pt")
    model = load_slim(Around(ByNumber(), nn.LayerNorm(12)), tmp_path / "slim.pt")
    (group,) = prunable_groups(model, TOKENS())
    group.zero(model, torch.tensor([0]))
    assert slim(model, TOKENS()).attend.heads == 1
