"""What the table of operators claims, checked by running each operator that it names."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx import Graph, Node

from lightning_prune.graph.dataflow import arguments_of, called
from lightning_prune.graph.operator_kinds import KINDS, Kind, is_kind, keeps_zero, operators

ATEN = torch.ops.aten
Call = tuple[Callable[..., object], Tensor]
"""A function of an operator's first tensor, and such a tensor."""


def tensor(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def calls(operator: Callable[..., object], shape: tuple[int, ...], *choices: tuple[object, ...]) -> list[Call]:
    """Return one call for each choice of what the operator is told behind its first tensor."""
    return [(lambda x, told=told: operator(x, *told), tensor(*shape)) for told in choices]


MAPS = (2, 3, 6, 6)
MAP = {1: (2, 3, 7), 2: (2, 3, 7, 6), 3: (2, 3, 4, 5, 6)}


def pools(name: str, *choices: tuple[object, ...]) -> dict[str, list[Call]]:
    """Return calls of a pool in one, two and three dimensions; a number in the choices is one for each of these."""
    found = {}
    for rank, shape in MAP.items():
        told = [tuple([each] * rank if type(each) is int else each for each in choice) for choice in choices]
        found[f"{name}{rank}d"] = calls(getattr(ATEN, f"{name}{rank}d").default, shape, *told)
    return found


def listed(operator: Callable[..., object], *told: object) -> list[Call]:
    """Return calls of an operator of a list of tensors, as functions of the first of them."""
    return [(lambda x: operator([x, OTHER], *told), tensor(2, 3))]


OTHER = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
CALLS: dict[str, list[Call]] = {
    "view": calls(ATEN.view.default, (2, 6), ([3, 4],), ([-1],)),
    "reshape": calls(ATEN.reshape.default, (2, 6), ([3, -1],)),
    "_unsafe_view": calls(ATEN._unsafe_view.default, (2, 6), ([12],)),
    "flatten": calls(ATEN.flatten.using_ints, (2, 3, 4), (1,), (0, -2)),
    "unflatten": calls(ATEN.unflatten.int, (2, 6), (-1, [3, 2])),
    "squeeze": [
        *calls(ATEN.squeeze.default, (2, 1, 3), ()),
        *calls(ATEN.squeeze.dim, (2, 1, 3), (1,), (0,)),
        *calls(ATEN.squeeze.dims, (2, 1, 3), ([0, 1],)),
    ],
    "unsqueeze": calls(ATEN.unsqueeze.default, (2, 3), (1,), (-1,)),
    "view_as": calls(ATEN.view_as.default, (2, 6), (tensor(3, 4),)),
    "reshape_as": calls(ATEN.reshape_as.default, (2, 6), (tensor(12),)),
    "permute": calls(ATEN.permute.default, (2, 3, 4), ([2, 0, 1],)),
    "transpose": calls(ATEN.transpose.int, (2, 3, 4), (0, -1)),
    "t": calls(ATEN.t.default, (2, 3), ()),
    "numpy_T": calls(ATEN.numpy_T.default, (2, 3, 4), ()),
    "mT": calls(ATEN.mT.default, (2, 3, 4), ()),
    "movedim": [
        *calls(ATEN.movedim.int, (2, 3, 4), (0, -1)),
        *calls(ATEN.movedim.intlist, (2, 3, 4), ([0, 1], [1, 2])),
    ],
    "moveaxis": [
        *calls(ATEN.moveaxis.int, (2, 3, 4), (0, -1)),
        *calls(ATEN.moveaxis.intlist, (2, 3, 4), ([0, 1], [1, 2])),
    ],
    "swapaxes": calls(ATEN.swapaxes.default, (2, 3, 4), (0, 2)),
    "swapdims": calls(ATEN.swapdims.default, (2, 3, 4), (-1, 1)),
    "flip": calls(ATEN.flip.default, (2, 3, 4), ([0, 2],)),
    "repeat": calls(ATEN.repeat.default, (2, 3), ([2, 1, 2],)),
    "tile": calls(ATEN.tile.default, (2, 3), ([2, 1, 2],)),
    "repeat_interleave": calls(ATEN.repeat_interleave.self_int, (2, 3), (2, 1), (3, None)),
    "contiguous": calls(ATEN.contiguous.default, (2, 3), ()),
    "clone": calls(ATEN.clone.default, (2, 3), ()),
    "alias": calls(ATEN.alias.default, (2, 3), ()),
    "detach": calls(ATEN.detach.default, (2, 3), ()),
    "to": calls(ATEN.to.dtype, (2, 3), (torch.float64, False, True)),
    "_to_copy": calls(ATEN._to_copy.default, (2, 3), ()),
    "type_as": calls(ATEN.type_as.default, (2, 3), (tensor(1),)),
    "lift_fresh_copy": calls(ATEN.lift_fresh_copy.default, (2, 3), ()),
    "expand": calls(ATEN.expand.default, (2, 1, 3), ([4, 2, 5, 3],)),
    "expand_as": calls(ATEN.expand_as.default, (2, 1, 3), (tensor(4, 2, 5, 3),)),
    "slice": calls(ATEN.slice.Tensor, (2, 6), (1, 1, 5), (1, 0, 6, 2)),
    "narrow": calls(ATEN.narrow.default, (2, 6), (-1, 2, 3)),
    "select": calls(ATEN.select.int, (2, 6), (1, -1)),
    "unbind": calls(ATEN.unbind.int, (2, 6), (1,)),
    "chunk": calls(ATEN.chunk.default, (2, 6), (4, -1)),
    "split": [*calls(ATEN.split.Tensor, (2, 6), (4, 1)), *calls(ATEN.split.sizes, (2, 6), ([1, 5], 1))],
    "split_with_sizes": calls(ATEN.split_with_sizes.default, (2, 6), ([1, 5], 1)),
    "tensor_split": [
        *calls(ATEN.tensor_split.sections, (2, 6), (4, 1)),
        *calls(ATEN.tensor_split.indices, (2, 6), ([1, 3], 1)),
    ],
    "getitem": [(lambda x: (x, 2 * x)[0], tensor(2, 3))],
    "index_select": calls(ATEN.index_select.default, (2, 6), (1, torch.tensor([5, 0, 0]))),
    "roll": calls(ATEN.roll.default, (2, 6), ([2], [1]), ([1], [])),
    "pad": [
        *calls(ATEN.pad.default, (1, 2, 6), ([1, 2, 0, 1],)),
        *calls(ATEN.pad.default, (1, 2, 6), ([2, 1], "reflect"), ([2, 1], "replicate"), ([2, 1], "circular")),
    ],
    "constant_pad_nd": calls(ATEN.constant_pad_nd.default, (2, 6), ([1, 2],), ([-1, 0, 1, 0],)),
    "channel_shuffle": calls(ATEN.channel_shuffle.default, (2, 6, 3, 3), (2,)),
    "pixel_shuffle": calls(ATEN.pixel_shuffle.default, (2, 8, 3, 3), (2,)),
    "pixel_unshuffle": calls(ATEN.pixel_unshuffle.default, (2, 2, 4, 6), (2,)),
    "dropout": calls(ATEN.dropout.default, MAPS, (0.5, False)),
    "feature_dropout": calls(ATEN.feature_dropout.default, MAPS, (0.5, False)),
    "alpha_dropout": calls(ATEN.alpha_dropout.default, MAPS, (0.5, False)),
    **pools("max_pool", (2,), (3, 2, 1, 1, True)),
    **pools("adaptive_max_pool", (2,), (3,)),
    **pools("avg_pool", (2,), (3, 2, 1, True, False)),
    **pools("adaptive_avg_pool", (2,), (1,)),
    **pools("upsample_nearest", (9,), (3,)),
    "upsample_linear1d": calls(ATEN.upsample_linear1d.default, MAP[1], ([9], False), ([9], True)),
    "upsample_bilinear2d": calls(ATEN.upsample_bilinear2d.default, MAP[2], ([9, 9], False), ([3, 3], True)),
    "upsample_bicubic2d": calls(ATEN.upsample_bicubic2d.default, MAP[2], ([9, 9], False)),
    "upsample_trilinear3d": calls(ATEN.upsample_trilinear3d.default, MAP[3], ([9, 9, 9], False)),
    "mean": [*calls(ATEN.mean.default, MAPS, ()), *calls(ATEN.mean.dim, MAPS, ([2, -1], True))],
    "sum": [*calls(ATEN.sum.default, MAPS, ()), *calls(ATEN.sum.dim_IntList, MAPS, ([2, -1], True))],
    "amax": calls(ATEN.amax.default, MAPS, ([2, 3],), ([-1], True)),
    "amin": calls(ATEN.amin.default, MAPS, ([2, 3],), ([-1], True)),
    "div": [*calls(ATEN.div.Tensor, (2, 3), (tensor(2, 3).abs() + 1,)), *calls(ATEN.div.Scalar, (2, 3), (3.0,))],
    "leaky_relu": calls(ATEN.leaky_relu.default, (2, 3), (), (0.2,)),
    "rrelu": calls(ATEN.rrelu.default, (2, 3), ()),
    "prelu": calls(ATEN.prelu.default, MAPS, (torch.rand(3, dtype=torch.float64),)),
    "where": [(lambda x: ATEN.where.self(x > 0, x, torch.full_like(x, 3)), tensor(2, 3))],
    "linear": calls(ATEN.linear.default, (4, 5), (tensor(3, 5), tensor(3))),
    **{
        f"conv{rank}d": calls(
            getattr(ATEN, f"conv{rank}d").default, shape, (tensor(4, 3, *(3,) * rank), tensor(4), [2] * rank)
        )
        for rank, shape in MAP.items()
    },
    **{
        f"conv_transpose{rank}d": calls(
            getattr(torch, f"conv_transpose{rank}d"), shape, (tensor(3, 4, *(3,) * rank), tensor(4), [2] * rank)
        )
        for rank, shape in MAP.items()
    },
    "batch_norm": calls(
        ATEN.batch_norm.default, MAPS, (tensor(3), tensor(3), None, None, True, 0.1, 0.0, False)
    ),
    "instance_norm": calls(
        ATEN.instance_norm.default, MAPS, (tensor(3), tensor(3), None, None, True, 0.1, 0.0, False)
    ),
    "group_norm": [
        (lambda x, *affine: ATEN.group_norm.default(x, 2, *affine, 0.0), tensor(2, 4, 3, 3)),
    ],
    "layer_norm": [(lambda x, *affine: ATEN.layer_norm.default(x, [4], *affine, 0.0), tensor(2, 3, 4))],
    "rms_norm": [(lambda x, weight, bias: ATEN.rms_norm.default(x, [4], weight, 0.0), tensor(2, 3, 4))],
    "mul": calls(ATEN.mul.Tensor, (2, 3), (OTHER,)),
    "matmul": calls(ATEN.matmul.default, (2, 3), (OTHER.T,)),
    "bmm": calls(ATEN.bmm.default, (4, 2, 3), (tensor(4, 3, 2),)),
    "mm": calls(ATEN.mm.default, (2, 3), (OTHER.T,)),
    **{name: calls(getattr(ATEN, name).Tensor, (2, 3), (OTHER,)) for name in ("add", "sub")},
    **{name: calls(getattr(ATEN, name).default, (2, 3), (OTHER,)) for name in ("maximum", "minimum")},
    **{name: listed(getattr(ATEN, name).default, -1) for name in ("cat", "concat", "concatenate", "stack")},
    **{name: calls(getattr(ATEN, name).default, (2, 3), ()) for name in ("abs", "neg", "relu", "hardtanh", "relu6")},
    **{name: calls(getattr(ATEN, name).default, (2, 3), ()) for name in ("elu", "selu", "celu", "gelu", "silu")},
    **{name: calls(getattr(ATEN, name).default, (2, 3), ()) for name in ("mish", "hardswish", "softplus", "tanh")},
    **{name: calls(getattr(ATEN, name).default, (2, 3), ()) for name in ("sigmoid", "hardsigmoid")},
    "softmax": calls(ATEN.softmax.int, (2, 3), (1,), (0,)),
}  # fmt: skip
TRAINING: dict[str, list[Call]] = {
    "dropout": calls(ATEN.dropout.default, MAPS, (0.5, True)),
    "feature_dropout": calls(ATEN.feature_dropout.default, MAPS, (0.5, True)),
    "rrelu": calls(ATEN.rrelu.default, (2, 3), (0.1, 0.5, True)),
}
"""How operators are called in training mode, where that is otherwise."""


def outputs(call: Callable[..., object], *tensors: Tensor) -> list[Tensor]:
    """Run a call with the same random numbers each time; without the indices that it gives beside its numbers."""
    torch.manual_seed(0)
    found = torch.utils._pytree.tree_leaves(call(*tensors))
    return [each for each in found if each.is_floating_point()]


def of_kind(kind: Kind, samples: dict[str, list[Call]] = CALLS) -> list[object]:
    """Return the calls of the operators of a kind, each a case of a test."""
    named = [(name, call) for name in operators(kind) for call in samples.get(name, [])]
    return [pytest.param(*call, id=f"{name}-{number}") for number, (name, call) in enumerate(named)]


def test_every_operator_has_a_call() -> None:
    missing = set(KINDS) - set(CALLS)
    assert not missing, f"add calls to CALLS for {', '.join(sorted(missing))}"
    assert set(CALLS) == set(KINDS)
    for name in set(KINDS) - {"getitem"}:
        assert isinstance(getattr(ATEN, name, None), torch._ops.OpOverloadPacket)


@pytest.mark.parametrize(("call", "x"), [*of_kind(Kind.HOMOGENEOUS), *of_kind(Kind.HOMOGENEOUS, TRAINING)])
def test_homogeneous(call: Callable[..., object], x: Tensor) -> None:
    for factor in (0.0, 0.3, 7.0):
        for scaled, plain in zip(outputs(call, factor * x), outputs(call, x), strict=True):
            torch.testing.assert_close(scaled, factor * plain)


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.SAME_NUMBERS))
def test_same_numbers(call: Callable[..., object], x: Tensor) -> None:
    numbers = {0.0, *x.flatten().tolist()}
    found = outputs(call, x)
    assert found
    for output in found:
        assert set(output.flatten().tolist()) <= numbers


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.MOVES))
def test_moves_are_the_same_whatever_the_numbers(call: Callable[..., object], x: Tensor) -> None:
    places = torch.arange(1.0, 1 + x.numel(), dtype=x.dtype).view(x.shape)
    numbers = torch.cat([torch.zeros(1, dtype=x.dtype), x.flatten()])
    for output, moved in zip(outputs(call, x), outputs(call, places), strict=True):
        assert torch.equal(output, numbers[moved.long()])


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.COPIES))
def test_copies(call: Callable[..., object], x: Tensor) -> None:
    (output,) = outputs(call, x)
    assert torch.equal(output, x.broadcast_to(output.shape))


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.RESHAPES))
def test_reshapes(call: Callable[..., object], x: Tensor) -> None:
    (output,) = outputs(call, x)
    assert torch.equal(output.flatten(), x.flatten())


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.REARRANGES))
def test_rearranges_every_number_as_often(call: Callable[..., object], x: Tensor) -> None:
    (output,) = outputs(call, x)
    numbers, times = output.unique(return_counts=True)
    assert torch.equal(numbers, x.unique())
    assert (times == output.numel() // x.numel()).all()


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.SPATIAL))
def test_spatial_operators_treat_each_channel_for_itself(call: Callable[..., object], x: Tensor) -> None:
    (output,) = outputs(call, x)
    (turned,) = outputs(call, x.flip(1))
    assert torch.equal(turned.flip(1), output)
    (alone,) = outputs(call, x[:, :1])
    torch.testing.assert_close(alone, output[:, :1])


@pytest.mark.parametrize("name", operators(Kind.SPATIAL))
def test_spatial_operators_tell_their_dimensions(name: str) -> None:
    for _, x in CALLS[name]:
        assert f"{x.ndim - 2}d" in name


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.ELEMENTWISE))
def test_elementwise(call: Callable[..., object], x: Tensor) -> None:
    (before,) = outputs(call, x)
    for position in range(x.numel()):
        changed = x.clone()
        changed.view(-1)[position] += 1
        (after,) = outputs(call, changed)
        assert after.shape == x.shape
        others = torch.arange(x.numel()) != position
        assert torch.equal(after.flatten()[others], before.flatten()[others])


@pytest.mark.parametrize("name", operators(Kind.LAYER))
def test_layers_are_linear_in_input_and_weight(name: str) -> None:
    ((_, x),) = CALLS[name]
    layer = getattr(torch, name, None) or getattr(torch.nn.functional, name)
    shape = (5, x.shape[1]) if name == "linear" else (4, 3, *(3,) * (x.ndim - 2))
    if "transpose" in name:
        shape = (3, 4, *shape[2:])
    weight, other, bias = tensor(*shape), tensor(*shape), tensor(shape[1 if "transpose" in name else 0])
    plain = layer(x, weight)
    torch.testing.assert_close(layer(x + 2 * x.flip(0), weight), plain + 2 * layer(x.flip(0), weight))
    torch.testing.assert_close(layer(x, weight + 2 * other), plain + 2 * layer(x, other))
    torch.testing.assert_close(layer(x, weight, bias) - plain, layer(0 * x, weight, bias))
    torch.testing.assert_close(layer(x, weight, 3 * bias) - plain, 3 * layer(0 * x, weight, bias))


def normalization(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return a normalization as a function of its input, weight and bias."""
    if name in operators(Kind.CHANNEL_NORM):
        options = (None, None, True, 0.1, 0.0, False)
        return lambda x, weight, bias: getattr(ATEN, name).default(x, weight, bias, *options)
    ((call, _),) = CALLS[name]
    return call  # type: ignore[return-value]


@pytest.mark.parametrize("name", operators(Kind.NORM))
def test_norms_are_linear_in_weight_and_bias_and_take_no_notice_of_scale(name: str) -> None:
    ((_, x),) = CALLS[name]
    norm, size = normalization(name), x.shape[-1 if name in ("layer_norm", "rms_norm") else 1]
    weight, bias, none = tensor(size), tensor(size), torch.zeros(size, dtype=torch.float64)
    plain = norm(x, weight, bias)
    torch.testing.assert_close(norm(x, 3 * weight, 3 * bias), 3 * plain)
    torch.testing.assert_close(norm(x, weight, none) + norm(x, none, bias), plain)
    torch.testing.assert_close(norm(5 * x, weight, bias), plain)


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.CHANNEL_NORM))
def test_channel_norms_look_at_one_channel(call: Callable[..., object], x: Tensor) -> None:
    (before,) = outputs(call, x)
    x = x.clone()
    x[:, 0] *= torch.rand(x[:, 0].shape, dtype=x.dtype)
    (after,) = outputs(call, x)
    torch.testing.assert_close(after[:, 1:], before[:, 1:])


PAIRS = {
    **{name: getattr(ATEN, name).Tensor for name in ("mul", "add", "sub")},
    **{name: getattr(ATEN, name).default for name in ("maximum", "minimum", "matmul", "mm")},
    "bmm": lambda x, y: ATEN.bmm.default(x[None], y[None]),
    **{name: lambda x, y, name=name: getattr(ATEN, name).default([x, y]) for name in ("cat", "concat", "concatenate")},
    "stack": lambda x, y: ATEN.stack.default([x, y]),
}


@pytest.mark.parametrize("name", operators(Kind.PRODUCT))
def test_products_are_homogeneous_in_each_factor(name: str) -> None:
    x, y = tensor(3, 3), tensor(3, 3)
    for left, right in ((5.0, 1.0), (1.0, 5.0), (0.0, 1.0), (1.0, 0.0)):
        torch.testing.assert_close(PAIRS[name](left * x, right * y), left * right * PAIRS[name](x, y))


@pytest.mark.parametrize("name", operators(Kind.JOINT))
def test_joints_are_homogeneous_in_all_together(name: str) -> None:
    x, y = tensor(3, 3), tensor(3, 3)
    for factor in (0.0, 5.0):
        torch.testing.assert_close(PAIRS[name](factor * x, factor * y), factor * PAIRS[name](x, y))


@pytest.mark.parametrize("name", operators(Kind.ACTIVATION))
def test_activations_are_larger_where_they_are_active(name: str) -> None:
    call, x = CALLS[name][0]
    (active,), (silent,) = (outputs(call, torch.full_like(x, number)) for number in (4.0, -4.0))
    assert (active > silent).all()


@pytest.mark.parametrize(("call", "x"), of_kind(Kind.NOT_NEGATIVE))
def test_not_negative(call: Callable[..., object], x: Tensor) -> None:
    for factor in (1.0, 100.0, -100.0):
        (output,) = outputs(call, factor * x)
        assert (output >= 0).all()


def node_of(operator: torch._ops.OpOverload, *told: object) -> Node:
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(2, dtype=torch.float32)
    return graph.call_function(operator, (x, *told))


UNARY = ("relu", "gelu", "tanh", "abs", "softplus", "sigmoid", "exp", "cos", "sin", "hardsigmoid", "square", "log")


@pytest.mark.parametrize("name", UNARY)
def test_what_keeps_zero(name: str) -> None:
    node = node_of(getattr(ATEN, name).default)
    assert is_kind(node, Kind.ELEMENTWISE)
    expected = bool(getattr(ATEN, name).default(torch.zeros(1)) == 0)
    assert keeps_zero(node, arguments_of(node)) == expected == (name in (*UNARY[:4], "sin", "square"))


def test_what_is_told_decides_whether_zero_is_kept() -> None:
    kept = {told: node_of(ATEN.clamp.default, *told) for told in ((-1.0, 1.0), (0.5, 1.0))}
    assert [keeps_zero(node, arguments_of(node)) for node in kept.values()] == [True, False]
    node = node_of(ATEN.add.Scalar, 2)
    assert not keeps_zero(node, arguments_of(node))
    refused = node_of(ATEN.remainder.Scalar, 0)
    refused.args[0].meta["val"] = torch.zeros(1, dtype=torch.int64)  # type: ignore[union-attr]
    assert not keeps_zero(refused, arguments_of(refused))


def test_writing_in_place_is_no_other_operator() -> None:
    node = node_of(ATEN.relu_.default)
    assert called(node) == "relu"
    assert is_kind(node, Kind.HOMOGENEOUS)
    assert not is_kind(node, Kind.MOVES)


def test_unknown_operators_do_nothing_that_is_known() -> None:
    node = node_of(ATEN.cumsum.default, 0)
    assert not any(is_kind(node, kind) for kind in Kind)


def test_kinds_imply_others() -> None:
    for kind in (Kind.COPIES, Kind.RESHAPES, Kind.REARRANGES):
        assert set(operators(kind)) < set(operators(Kind.MOVES))
    assert set(operators(Kind.MOVES)) < set(operators(Kind.HOMOGENEOUS)) & set(operators(Kind.SAME_NUMBERS))
    assert set(operators(Kind.CHANNEL_NORM)) < set(operators(Kind.NORM))
